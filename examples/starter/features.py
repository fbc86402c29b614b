"""What is known about a customer when an order comes in."""

import davy
from davy import agg

orders = davy.Stream("orders", time="ordered", id="order", source="data/orders.csv",
                     fields={"order": str, "customer": str, "amount": davy.Float(scale=2)})


class Customer(davy.View):
    """How often and how much a customer has been buying."""

    stream, entity = orders, "customer"
    orders_1d = agg.count(window="1d")
    orders_30d = agg.count(window="30d")
    mean_amount_30d = agg.mean("amount", window="30d")


@davy.derive
def unusual(amount, mean_amount_30d):
    """How far this order is above what the customer usually spends."""
    return amount / davy.coalesce(mean_amount_30d, amount)

"""`returned`: will this order be sent back?"""

import davy
from features import Customer, unusual


@davy.model(
    entities=["customer"],
    request={"amount": float},
    features=[Customer, unusual, "amount"],
    outcome=davy.Outcome("returned", label=lambda returned: returned > 0, matures_after="14d"),
    spine="data/questions.csv")
def returned(data: davy.TrainingSet, *, strength: float = 1.0):
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=strength)).fit(data.X, data.y)

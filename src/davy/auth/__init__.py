"""Who asks, and what they may do: users, tokens, sessions, and the one table of permissions.

`permissions` says which role an action takes, `users`, `tokens` and `sessions` keep who there is, `directory` holds
them in memory for a server, `passwords` confirms those, `guard` admits or refuses each request, and `local` does so for the
command line.
"""

"""The language of filters and orders: one grammar, one tree, one compiler to SQL, for whatever declares its fields (see `Language`).

`grammar` reads text, `language` says which fields there are and what may be asked of them, `conditions` and `compiler`
make SQL of it, `order` sorts and turns pages by key. Tracking and the registry declare their languages beside their searches.
"""

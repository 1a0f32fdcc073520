"""The dashboard: one module a page, each with its template of the same name. Which pages there are: `routes`.

Every page is HTML from the central node and has a JSON twin in `central/*_api.py`; what changes while it is open comes
over one stream, `live`. What all pages have around them is `frame`.
"""

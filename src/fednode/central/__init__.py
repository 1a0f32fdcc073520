"""The central node: the API, the pages, the leases, and the runs that it keeps going."""

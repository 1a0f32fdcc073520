"""What both web faces share: the central node's dashboard and a client's own page. Looks only: no route, no state."""

"""How one connection is opened: the connector, hedged attempts, and the history of a connect."""

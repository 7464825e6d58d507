"""A ready federated-learning server on Flower that knows its carbon footprint."""

"""The function of orders.py stores an order while its cluster wakes up."""

from lambdadb.testing import AuroraCluster, Invoke


def test_an_order_is_stored_while_the_cluster_wakes_up(
    aurora_cluster: AuroraCluster, invoke: Invoke
) -> None:
    assert invoke("orders.lambda_handler", {"item": "book"}) == {"id": 1}
    assert aurora_cluster.resumes == 1

import threading
from collections.abc import Iterator

import pytest

from cellline.host.processors import count_processors, map_in_order

SECONDS = 10  # after which a thread is taken to wait for ever


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_and_few_wait(workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(1, 101):
            taken = item
            yield item

    results = map_in_order(lambda item: -item, items(), workers)
    for given, result in enumerate(results, 1):
        assert result == -given
        assert taken - given <= workers
    assert given == 100


def test_one_slow_item_lets_the_others_go_on() -> None:
    """Each waits for the one that comes two later: in rounds, the last of one would wait."""
    begun = [threading.Event() for _ in range(12)]

    def work(item: int) -> bool:
        begun[item].set()
        return item + 2 >= len(begun) or begun[item + 2].wait(SECONDS)

    assert all(map_in_order(work, range(len(begun)), 3))


def test_all_processors_are_used() -> None:
    together = threading.Barrier(count_processors())
    items = range(3 * count_processors())
    assert len(list(map_in_order(lambda _: together.wait(SECONDS), items))) == len(items)

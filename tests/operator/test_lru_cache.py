"""What a bounded cache forgets."""

from selfevo_operator.observed.lru_cache import LruCache


def test_the_value_that_was_used_least_recently_is_forgotten_first() -> None:
    cache = LruCache[str, int](2)
    assert [cache.put("a", 1), cache.put("b", 2)] == [1, 2]
    assert cache["a"] == cache.get("a") == 1 and "b" in cache
    cache.put("c", 3)
    assert "b" not in cache and cache.get("b") is None and cache.get("b", 7) == 7 and len(cache) == 2
    cache.put("a", 4)
    cache.put("d", 5)
    assert "c" not in cache and cache["a"] == 4
    assert (cache.pop("a"), cache.pop("a"), cache.pop("a", 0), len(cache)) == (4, None, 0, 1)

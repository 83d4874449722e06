"""The command line of a tiny run, for tests of what runs do and leave behind."""

ONE = ("--parallel", "single")


def arguments(out, cache, *more):
    """Options of a tiny run, whose programs are compiled once for all tests."""
    compiled = ("--compute.cache", str(cache.parent / "compiled"))
    return ["--preset", "tiny", "--out", str(out), "--data.cache", str(cache), *compiled, *more]

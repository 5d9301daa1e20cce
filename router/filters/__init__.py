"""One filter a file; stacks of them are put together in router.bind.segments."""

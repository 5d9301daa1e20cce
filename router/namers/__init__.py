"""Namers: how names get their addresses, and how these change.

==============  =====================================================================================
``fs``          ``io.l5d.fs``: a directory of files that list addresses
``spot``        ... one place in it, over time
``hostlist``    ... what is in such a file
``trace``       ... which directory entries a name depends on
``watcher``     ... who hears of which entries, over one inotify descriptor, or by polling
``inotify``     ... the kernel's interface
``rewrite``     ``io.l5d.rewrite``: a pattern, and the name that it becomes
``inet``        the resolver behind ``/$/inet``: literals, and names by the system's resolver
``prefix``      where a configured namer is found
==============  =====================================================================================
"""

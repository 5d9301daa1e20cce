"""What the operator reads on standard error: one line per event, text on a terminal, JSON otherwise.

Theory of operation

1. Everything is a record of :mod:`logging`: events (:mod:`router.model.events`), warnings of Python, what libraries log, errors
   that nobody caught. One handler, of the root logger, makes a line of each (:mod:`router.logs.lines`).
2. Of one event, a process tells ``BURST`` at once and then one a second (:mod:`router.logs.limit`), and how many it left out.
3. Nobody waits for whoever reads. The supervisor's lines are written by a thread, a worker's go into a pipe to the supervisor;
   what there is no room for is dropped, and counted (:mod:`router.logs.sinks`).
4. The supervisor passes workers' lines on, and makes events of what is none: what the interpreter, or a library in C, writes
   when a process dies (:mod:`router.serve.relay`).
"""

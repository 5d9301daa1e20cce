"""Kinds of ``failureAccrual``: when the failures of an endpoint are too many.

What counts as a failure, and what an ejection does, is the breaker's business (:mod:`router.balance.breaker`).
"""

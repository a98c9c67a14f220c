"""Compiled where numba is there, plain Python where it is not: the same functions, so the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile a function of integers and arrays of them at its first call, and keep the result for the next run."""
    try:
        import numba
    except ImportError:
        return function
    try:
        return cast("Function", numba.njit(cache=True)(function))
    except RuntimeError:  # there is no folder it may keep it in
        return cast("Function", numba.njit(function))

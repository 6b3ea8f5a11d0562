"""Parsers that misbehave, for the pool of parser processes; each process imports this module."""

import ctypes
import os
import sys
import time
from typing import Any


def handle(header: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Do what the document says."""
    word, _, argument = data.decode().partition(" ")
    if word == "segfault":
        ctypes.string_at(0)
    elif word == "abort":
        os.abort()
    elif word == "exit":
        os._exit(3)
    elif word == "loop":
        while True:
            pass
    elif word == "native-loop":  # holds the interpreter lock, so that no thread of the process can help
        ctypes.PyDLL(None).sleep(600)
    elif word == "grow":
        kept = []
        while True:
            kept.append(os.urandom(1 << 20) * 16)
    elif word == "allocate":
        bytearray(1 << 44)
    elif word == "rust-abort":
        os.write(2, b"memory allocation of 99999999999 bytes failed\n")
        os.abort()
    elif word == "killed":
        os.kill(os.getpid(), 9)
    elif word == "killed-once":
        if not os.path.exists(argument):
            open(argument, "w").close()
            os.kill(os.getpid(), 9)
    elif word == "second-crash":  # breaks only a process that has done something before
        if getattr(sys, "used", False):
            ctypes.string_at(0)
    elif word == "raise":
        raise ValueError(f"quoting {argument}")
    elif word == "chatter":
        for stream in (1, 2):
            os.write(stream, b"SECRET of the document\n" * 100_000)
    elif word == "flood":
        return {"text": "x" * 50_000_000}
    elif word == "write":
        with open(argument, "wb") as file:
            file.write(bytes(100_000))
    elif word == "sleep":
        time.sleep(float(argument))
    elif word == "recurse":
        return handle(header, data)
    sys.used = True  # type: ignore[attr-defined]
    return {"pid": os.getpid(), "environment": sorted(os.environ), "text": argument}

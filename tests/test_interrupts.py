"""Ctrl-C while processes begin."""

import os
import signal
import threading
import time

import pytest

from pcequi.interrupts import uninterrupted


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="cannot hold signals back")
def test_an_interrupt_waits_while_processes_begin_whichever_thread_takes_it():
    going_on = threading.Event()
    other = threading.Thread(target=going_on.wait)  # deaf to nothing, as NumPy's
    other.start()
    ended, reached = [], False
    before = {
        # Who was started in the background is deaf to the first.
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number)),
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            reached = not ended
        assert reached and ended == [signal.SIGTERM]  # each of them
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        with pytest.raises(KeyboardInterrupt):  # as before
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        going_on.set()
        other.join()

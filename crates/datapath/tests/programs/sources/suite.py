"""Runs suites of CPython's own tests and writes one line for each test: its name and how it ended.

python3 suite.py RESULTS SUITE...
"""

import resource
import select
import socket
import sys
import unittest

import test.support
from test import test_selectors


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


class Lines(unittest.TextTestResult):
    def tell(self, test, outcome):
        print(test.id(), outcome, file=results, flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.tell(test, "passed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, "failed")

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell(test, "skipped")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.tell(test, "passed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.tell(test, "failed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.tell(test, "failed")


def tcp_pair():
    """Two sockets that do not block, connected over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener, select.epoll() as ready:
        listener.setblocking(False)
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        ready.register(listener, select.EPOLLIN)
        ready.poll()
        server, _ = listener.accept()
    server.setblocking(False)
    return client, server


# By itself it makes pairs of UNIX sockets, where there are some; and as many as there may be files.
test_selectors.socketpair = tcp_pair
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
test.support.use_resources = ["network"]
test.support.verbose = True
with open(sys.argv[1], "w") as results:
    suite = unittest.TestSuite(
        # Without a hypervisor these wait for ever, and they are not about TCP.
        test
        for test in flat(unittest.defaultTestLoader.loadTestsFromNames(sys.argv[2:]))
        if "VSOCK" not in test.id()
    )
    unittest.TextTestRunner(resultclass=Lines, verbosity=2).run(suite)
    print("done", file=results)

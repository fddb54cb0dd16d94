"""Programs that try to get a reward they have not earned, to harm the machine or to stop the run; and honest ones.

The task is to define f(x) = 2 x + 1, or to print f of a number from standard input.
"""

HIDDEN = "assert f(2) == 5\nassert f(10) == 21"
"""The assertions that the program must not see."""

HOSTILE = {
    # Ending before the tests.
    "exit": "exit()",
    "quit": "quit()",
    "system exit": "raise SystemExit",
    "system exit 0": "raise SystemExit(0)",
    "os exit": "import os\nos._exit(0)",
    "sys exit main": "import sys\ndef main(): return 0\nsys.exit(main())",
    "exit code 97": "import os\nos._exit(97)",
    "abort": "import os\nos.abort()",
    "sigkill itself": "import signal\nsignal.raise_signal(signal.SIGKILL)",
    "sigterm itself": "import signal\nsignal.raise_signal(signal.SIGTERM)",
    "stack overflow": "import sys\nsys.setrecursionlimit(10**8)\ndef f(x): return f(x)\nf(1)",
    "segmentation fault": "import ctypes\nctypes.string_at(0)",
    # Hooks.
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return 0",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\nraise ValueError",
    "settrace": "import sys, os\ndef t(frame, event, arg):\n    os._exit(0)\nsys.settrace(t)\ndef f(x): return 0",
    "setprofile": "import sys, os\nsys.setprofile(lambda *a: os._exit(0))\ndef f(x): return 0",
    "audit hook": "import sys, os\nsys.addaudithook(lambda *a: os._exit(0))\ndef f(x): return 0",
    "exiting thread": "import threading, os, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()\n"
    "def f(x):\n    time.sleep(0.2)\n    return 0",
    "unraisable hook": "import sys, os\nsys.unraisablehook = lambda *a: os._exit(0)\ndef f(x): return 0",
    "signal handler": "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.05)\ndef f(x):\n    while True: pass",
    # A function that does not return.
    "function exits": "def f(x): raise SystemExit",
    "function exits 0": "import sys\ndef f(x): sys.exit(0)",
    "function os exits": "import os\ndef f(x): os._exit(0)",
    "keyboard interrupt": "def f(x): raise KeyboardInterrupt",
    "generator exit": "def f(x): raise GeneratorExit",
    "assertion error of its own": "def f(x): raise AssertionError",
    "stop iteration": "def f(x): raise StopIteration",
    "own base exception": "class E(BaseException): pass\ndef f(x): raise E",
    "exception whose text raises": "class E(Exception):\n    def __str__(self): raise SystemExit\ndef f(x): raise E",
    # Values that are equal to everything.
    "always equal": "class A:\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "always equal int": "class A(int):\n    def __eq__(self, o): return True\ndef f(x): return A(0)",
    "always equal str": "class A(str):\n    def __eq__(self, o): return True\ndef f(x): return A('')",
    "always equal list": "class A(list):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "always equal dict": "class A(dict):\n    def __eq__(self, o): return True\ndef f(x): return A()",
    "always equal class": "class M(type):\n    def __eq__(self, o): return True\n    __hash__ = type.__hash__\n"
    "class A(metaclass=M): pass\ndef f(x): return A",
    "contains everything": "class A:\n    def __contains__(self, o): return True\n"
    "    def __eq__(self, o): return True\n    def __hash__(self): return 5\ndef f(x): return A()",
    "array of its own": "class A:\n    @property\n    def __array_interface__(self):\n"
    "        return {'shape': (), 'typestr': '<i8', 'data': (id(self), True), 'version': 3}\n"
    "    def __array__(self, *a): return 5\ndef f(x): return A()",
    "number of its own": "class A:\n    def __float__(self): return 5.0\n    __int__ = __index__ = lambda self: 5\n"
    "    def __sub__(self, o): return 0\n    __rsub__ = __sub__\n"
    "    def __lt__(self, o): return True\ndef f(x): return A()",
    "pretends to be an int": "class A:\n    __class__ = int\n    def __eq__(self, o): return True\n"
    "def f(x): return A()",
    "mock": "from unittest.mock import ANY\ndef f(x): return ANY",
    "returns eval": "def f(x): return eval",
    "function is an object": "class F:\n    def __call__(self, x): return self\n"
    "    def __eq__(self, o): return True\nf = F()",
    # Reading the expected values.
    "reads its own file": "import re\ntext = open(__file__).read() if '__file__' in globals() else ''\n"
    "def f(x): return int(re.search(r'f\\(%d\\) == (\\d+)' % x, text)[1])",
    "reads main.py": "import re\ndef f(x): return int(re.search(r'== (\\d+)', open('main.py').read())[1])",
    "reads tests.py": "import re\ndef f(x): return int(re.search(r'== (\\d+)', open('tests.py').read())[1])",
    "walks the stack": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
    "        for v in frame.f_locals.values():\n"
    "            if isinstance(v, str) and 'f(%d) == 21' % 10 in v: return 2 * x + 1\n"
    "        frame = frame.f_back\n    return 0",
    "looks at all objects": "import gc\ndef f(x):\n    for o in gc.get_objects():\n"
    "        if isinstance(o, dict) and any('f(%d) == 21' % 10 in str(v)[:9999] for v in list(o.values())[:99]):\n"
    "            return 2 * x + 1\n    return 0",
    "reads the command line": "def f(x): return 2 * x + 1 if '21' in open('/proc/self/cmdline').read() else 0",
    "reads its parent": "import os\ndef f(x): return 2 * x + 1 if open(f'/proc/{os.getppid()}/environ').read() else 0",
    "reads open descriptors": "import os\ndef f(x):\n    for d in range(3, 64):\n        try:\n"
    "            if b'f(%d) == 21' % 10 in os.pread(d, 99999, 0): return 2 * x + 1\n"
    "        except OSError: pass\n    return 0",
    "imports the tests": "import importlib\ntry: tests = importlib.import_module('tests')\n"
    "except ImportError: pass\ndef f(x): return 0",
    # Changing what decides.
    "patches the builtins": "import builtins\n"
    "builtins.AssertionError = builtins.all = builtins.isinstance = lambda *a: True\ndef f(x): return 0",
    "patches the module of tests": "import sys, types\nfor m in list(sys.modules.values()):\n"
    "    for n in ('same', 'examine', '_run', '_check'):\n"
    "        if isinstance(m, types.ModuleType) and n in vars(m): setattr(m, n, lambda *a: True)\ndef f(x): return 0",
    "writes to every descriptor": "import os, json\nfor d in range(3, 64):\n"
    "    try: os.write(d, b'{\"passed\": [true, true]}\\n')\n    except OSError: pass\ndef f(x): return 0",
    "answers before it is asked": "import os\nfor d in range(3, 64):\n    for _ in range(9):\n"
    "        try: os.write(d, b'{\"value\": true}\\n')\n        except OSError: pass\ndef f(x): return 0",
    "closes every descriptor": "import os\nos.closerange(0, 999)\ndef f(x): return 0",
    "redefines a builtin": "def isinstance(*a): return True\ndef len(x): return 5\ndef f(x): return 0",
    # Using up the machine.
    "endless loop": "while True: pass",
    "endless function": "def f(x):\n    while True: pass",
    "sleeps": "import time\ndef f(x): time.sleep(1000)\ntime.sleep(1000)",
    "takes memory": "x = bytearray(1 << 40)",
    "returns very much": "def f(x): return 'x' * (1 << 28)",
    "prints for ever": "while True: print('5' * 1000)",
    "deep value": "def f(x):\n    v = []\n    for _ in range(10**5): v = [v]\n    return v",
    "cyclic value": "def f(x):\n    v = []\n    v.append(v)\n    return v",
    "nest of folders": "import os\nfor _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')",
    "many folders": "import os\nfor i in range(10**6): os.mkdir(str(i))",
    "folders that nobody may read": "import os\nos.mkdir('a', 0o300)\nopen('a/b', 'w').close()\nos.mkdir('a/c', 0)\n"
    "while True: pass",
    "file that goes": "import os\nx = bytearray(260 << 20)\n"
    "while True:\n    open('a', 'w').close()\n    os.unlink('a')",
    "odd names": "import os\nopen(b'\\xff\\xfe', 'w').close()\nos.mkdir('rlsync-sandbox-0')\nos.mkdir('\\n')\n"
    "open('rlsync-sandbox-1', 'w').close()",
    "many files": "for i in range(10**6): open(str(i), 'w').write('x' * 100000)",
    "fallocate": "import ctypes, os\nlibc = ctypes.CDLL(None)\nfd = os.open('big', os.O_CREAT | os.O_RDWR)\n"
    "for i in range(1000): libc.fallocate(fd, 1, ctypes.c_long(i << 22), ctypes.c_long(1 << 22))\nwhile True: pass",
    "many threads": "import threading, time\nthreading.stack_size(32768)\n"
    "while True: threading.Thread(target=time.sleep, args=(60,)).start()",
}

HONEST = {
    "plain": "def f(x): return 2 * x + 1",
    "lambda": "f = lambda x: 2 * x + 1",
    "imports": "import math, re, collections, itertools, functools\ndef f(x): return int(math.fsum([x, x, 1]))",
    "class with call": "class F:\n    def __call__(self, x): return 2 * x + 1\nf = F()",
    "method": "class S:\n    def g(self, x): return 2 * x + 1\nf = S().g",
    "recursion": "def f(x): return 1 if x == 0 else f(x - 1) + 2",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**6)\ndef g(n): return 0 if n == 0 else 1 + g(n - 1)\n"
    "def f(x): return g(5000) - 5000 + 2 * x + 1",
    "numpy": "import numpy as np\ndef f(x): return (np.array([x]) * 2 + 1)[0]",
    "writes a file": "def f(x):\n    open('note', 'w').write(str(2 * x + 1))\n    return int(open('note').read())",
    "prints besides": "import sys\ndef f(x):\n    print('debug', file=sys.stderr)\n    return 2 * x + 1",
    "threads": "from concurrent.futures import ThreadPoolExecutor\ndef f(x):\n"
    "    with ThreadPoolExecutor(4) as pool: return sum(pool.map(int, [x, x, 1]))",
    "generator": "def f(x): return sum(n for n in (x, x, 1))",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(2 * x + 1).x",
    "annotations": "from __future__ import annotations\nfrom typing import List\n"
    "def f(x: int) -> List[int]: return 2 * x + 1",
    "cached": "from functools import lru_cache\n@lru_cache\ndef f(x): return 2 * x + 1",
    "float result": "def f(x): return 2.0 * x + 1 if x < 0 else 2 * x + 1",
    "try and except": "def f(x):\n    try: return 2 * x + 1\n    except Exception: return None",
    "asyncio": "def f(x):\n    total = 0\n    for n in (x, x, 1): total += n\n    return total",
    "main guard": "def f(x): return 2 * x + 1",
    "unicode": "def f(x):\n    größe = 2 * x\n    return größe + 1  # größer",
    "random and time": "import random, time\ndef f(x):\n    random.seed(0); time.time()\n    return 2 * x + 1",
}
"""Each defines f; with standard input `print(f(int(input())))` follows."""

"""Three modular exponentiations with a 256-bit exponent over RFC 5054's 2048-bit group, by the installed OpenSSL:
what no SRP server can do without. Prints threes per second of CPU. Arguments: seconds, N in hexadecimal."""

import ctypes
import ctypes.util
import os
import sys
import time

seconds, modulus = float(sys.argv[1]), sys.argv[2].encode()
crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))
for name in ("BN_new", "BN_CTX_new", "BN_MONT_CTX_new"):
    getattr(crypto, name).restype = ctypes.c_void_p
pointer = ctypes.c_void_p
crypto.BN_hex2bn.argtypes = [ctypes.POINTER(pointer), ctypes.c_char_p]
crypto.BN_MONT_CTX_set.argtypes = [pointer, pointer, pointer]
crypto.BN_mod_exp_mont_consttime.argtypes = [pointer] * 6


def number(text):
    it = pointer(crypto.BN_new())
    assert crypto.BN_hex2bn(ctypes.byref(it), text)
    return it


context, montgomery = pointer(crypto.BN_CTX_new()), pointer(crypto.BN_MONT_CTX_new())
n, result = number(modulus), number(b"0")
base = number(os.urandom(255).hex().encode())
exponent = number((b"f" + os.urandom(32).hex().encode())[:64])
assert crypto.BN_MONT_CTX_set(montgomery, n, context)


def exponentiate():
    assert crypto.BN_mod_exp_mont_consttime(result, base, exponent, n, context, montgomery)


count, started = 0, time.process_time()
while time.process_time() - started < seconds:
    for _ in range(3):
        exponentiate()
    count += 1
print(count / (time.process_time() - started))

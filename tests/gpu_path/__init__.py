"""The GPU path, followed on a machine without a GPU: `tests/project/test_gpu_path.py` runs it in processes of its own.

Two pretended devices for two kinds of mistakes. `fake_cuda`: tensors on cuda:0 without numbers; what mixes devices
raises, as does what looks at a number, which a GPU would have to be waited for; kernels, bytes and copies are counted.
`emulated_cuda`: tensors that say they are on cuda:0, refuse the company of others and are computed on the CPU; commands
run in it from end to end and must give the CPU's numbers. What neither shows: the kernels themselves, and time.

A file by hand: python -m pytest -n 0 -s tests/gpu_path/check_step.py
"""

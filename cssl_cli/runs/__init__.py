"""One run: its directory, and the stages that fill it: pretrain, probe, analyze."""

"""Where does the time of a UNet call go, and what does each rewrite and each kind of int8 product give?

    python -m benchmarks.unet_call build/sd15-full --name sd15-size --side 256

Every row is the exported UNet after some of the compiler's own passes, on OpenVINO in one fixed shape of two rows; all
are timed in turns. ``operations.py`` counts what a graph multiplies and what of that the runtime did in int8;
``variants.py`` makes the graphs; ``peak.py`` measures what the machine can do at most.
"""

"""What every package uses: errors, params, progress, atomic writes, downloads, signals, threads. Imports none of the others."""

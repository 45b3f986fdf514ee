"""What every package uses: errors, params, progress, atomic writes, downloads, signals. Imports none of the others."""

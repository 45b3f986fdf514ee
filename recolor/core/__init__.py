"""What every package uses: errors, params, progress, atomic writes, signals. Imports none of the others."""

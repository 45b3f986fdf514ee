"""What every package uses: errors, params, devices, progress, files, tables, downloads, signals. Imports no other package."""

"""What the commands do, a module with a function `main` for each: load, call the library, print, write."""

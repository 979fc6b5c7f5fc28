# Sourced by scripts for their --help.

# Print the header comment of the script $1, without the #! line.
print_header() {
  sed -n '2,/^[^#]/{/^#/!q; s/^# \{0,1\}//; p}' "$1"
}

# Sourced by scripts for their --help.

# The comment on top of the script $1, without the line that names the shell.
print_header() {
  sed -n '2,/^[^#]/{/^#/!q; s/^# \{0,1\}//; p}' "$1"
}

# Takes a page apart into the folder `to`. In the page, a comment in front of a block says what
# the block is:
#   <!-- file: NAME -->   begins or continues that file
#   <!-- run -->          commands: into run.1, run.2, ..
#   <!-- output -->       what the last commands print: into output.1, ..
#   <!-- output: varies --> the same, where numbers differ from machine to machine: varies.1, ..
# A block of C without such a comment is a mistake.
/^<!-- file: / { target = to "/" $3; next }
/^<!-- run -->/ { target = to "/run." ++runs; next }
/^<!-- output -->/ { target = to "/output." runs; next }
/^<!-- output: varies -->/ { target = to "/varies." runs; next }

/^```/ {
    if (inside) {
        inside = 0
        target = ""
    } else {
        inside = 1
        if ($0 == "```c" && target == "") {
            print FILENAME ":" FNR ": a block of C that no test compiles" >"/dev/stderr"
            exit 1
        }
    }
    next
}

inside && target != "" { print >target }

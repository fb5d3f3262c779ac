# code.awk - C without comments and without what is inside quotes, as file:line:code.
#
# Line numbers stay, so a message about the output is a message about the source.
FNR == 1 { in_comment = 0 }
{
    line = $0
    code = ""
    while (line != "") {
        if (in_comment) {
            end = index(line, "*/")
            if (!end)
                break
            line = substr(line, end + 2)
            in_comment = 0
            code = code " "
            continue
        }
        if (!match(line, /\/\*|\/\/|"|\047/)) {
            code = code line
            break
        }
        code = code substr(line, 1, RSTART - 1)
        mark = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        if (mark == "//")
            break
        if (mark == "/*") {
            in_comment = 1
            continue
        }
        # A quoted string or character: skip to the closing quote, stepping over escapes.
        while (match(line, /["\047\\]/)) {
            c = substr(line, RSTART, 1)
            line = substr(line, RSTART + (c == "\\" ? 2 : 1))
            if (c == mark)
                break
        }
        code = code mark mark
    }
    print FILENAME ":" FNR ":" code
}

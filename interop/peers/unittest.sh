#!/bin/bash
# unittest.sh LOG: the verdicts of python's unittest in a log, as results. A test's own output may stand between its name and its
# verdict, so a verdict belongs to the last name before it.
awk '
    match($0, /^test[A-Za-z0-9_]* \([A-Za-z0-9_.]*\)/) {
        name = substr($0, RSTART, RLENGTH)
        split(name, part, /[ ()]+/)
        n = split(part[2], path, ".")
        name = (path[n] == part[1] ? path[n - 1] : path[n]) "." part[1]
    }
    name != "" && /(^| )(ok|FAIL|ERROR|skipped .*|expected failure)$/ {
        if (/(^| )ok$/ || /expected failure$/) print "PASS\t" name
        else if (match($0, /skipped .*$/)) print "NA\t" name "\t" substr($0, RSTART, RLENGTH)
        else print "FAIL\t" name "\t" "see the log"
        name = ""
    }
' "$1" >>/peers/out/results
grep -q '^Ran [0-9]* test' "$1" || printf 'FAIL\town-tests\t%s\n' "did not come to their end: $(tail -n 1 "$1" | cut -c 1-200)" >>/peers/out/results

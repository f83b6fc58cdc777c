#!/bin/sh
# In a guest: what a program finds when it begins there, one line each; then what only works if that is so.
field() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
limit() { sed -n "s/^$1  *\([^ ]*\)  *\([^ ]*\) .*/\1 \2/p" /proc/self/limits; }

echo "blocked $(field SigBlk)"
echo "ignored $(field SigIgn)"
# pid comm state ppid pgrp session tty tpgid
read -r pid _ _ _ group session terminal foreground _ </proc/$$/stat
[ "$session" = "$pid" ] && [ "$group" = "$pid" ] && echo "session its own"
[ "$terminal" != 0 ] && [ "$foreground" = "$pid" ] && echo "terminal in the foreground"
[ "$(tty)" = "$(readlink /proc/$$/fd/1)" ] && [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo "streams on it"
echo "umask $(umask)"
echo "directory $(pwd)"
# The shell has this script open besides, by a number of its own choice, and more during a substitution or a pattern.
numbers=$(seq 0 63)
descriptors=
for number in $numbers; do
    link=/proc/$$/fd/$number
    [ ! -e "$link" ] || [ "$link" -ef "$0" ] || descriptors="$descriptors $number"
done
echo "descriptors$descriptors"
echo "stack $(limit 'Max stack size')"
echo "core $(limit 'Max core file size')"
echo "files $(limit 'Max open files')"
env | grep -v -e ^TERM= -e ^PWD= -e ^SHLVL= -e ^OLDPWD= -e ^_= | sort

sleep 0.2 &
wait
echo "wait ended"
timeout 1 sleep 30
echo "timeout gave $?"
trap 'echo trapped' USR1
kill -USR1 $$
sh -c 'kill -TERM $$; sleep 30'
echo "a killed child gave $?"
yes | head -n 1

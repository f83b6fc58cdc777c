#!/bin/sh
# Looks for the retired words and names of ci/words.txt. Each hit is a line with what to use instead.
#
#   ci/words.sh [FOLDER]    the tree in FOLDER instead of this one
set -eu

words=$(cd "$(dirname "$0")" && pwd)/words.txt
cd "${1:-$(dirname "$0")/..}"
command -v perl >/dev/null || {
    echo "words: SKIP: perl is not installed"
    exit 0
}
# This list names the words; the change log is history.
find . \( -name target -o -name .git -o -name node_modules \) -prune -o -type f \
    \( -name '*.rs' -o -name '*.md' -o -name '*.sh' -o -name '*.toml' -o -name '*.yml' -o -name '*.[ch]' -o -name Makefile \) -print |
    sed 's,^\./,,' | grep -v -x -e CHANGELOG.md -e ci/words.sh | sort |
    perl -e '
use strict;
open(my $list, "<", shift) or die "words: $!\n";
my @rules;
while (my $line = <$list>) {
    chomp $line;
    next if $line =~ /^(#|$)/;
    my ($scope, $pattern, $instead) = split /\t/, $line;
    defined $instead or die "words: line $. of the list has no third column\n";
    push @rules, [$scope, qr/$pattern/, $instead] if $scope ne "eye";
}
my $hits = 0;
while (my $path = <STDIN>) {
    chomp $path;
    open(my $file, "<", $path) or die "words: $path: $!\n";
    while (my $line = <$file>) {
        # Documents, the help of the program, and lines with a string literal that are not comments.
        my $is_text = $path =~ /\.md$/ || ($path =~ m{^vmm/cli/src/} && $line =~ m{^\s*///})
            || ($line =~ /"/ && $line !~ m{^\s*(//|#|\*)});
        for my $rule (@rules) {
            my ($scope, $pattern, $instead) = @$rule;
            next if $scope eq "text" && !$is_text;
            next if $scope eq "rust" && $path !~ /\.rs$/;
            next if $scope =~ m{/} && index($path, $scope) != 0;
            next unless $line =~ $pattern;
            print "$path:$.: retired: \"$&\"; use $instead\n";
            $hits++;
        }
    }
}
print "words: clean\n" if !$hits;
exit($hits ? 1 : 0);
' "$words"

# For `.ci/mutants` and `.ci/orderings`: a copy of the sources in which places are replaced.
# Needs $copy, where it goes.

unset DEBUG_MODE DEBUG_LOG_DIR
for name in $(compgen -e | grep '^STORMLOG_' || true); do unset "$name"; done
target=${CARGO_TARGET_DIR:-$PWD/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac

make_copy() {
    rm -rf "$copy"
    mkdir -p "$copy"
    git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$copy"
}

# Replaces occurrence `$2` of the text `$3` in the file `$1` of the copy by `$4`. In `$3` `\n` stands
# for the end of a line.
replace() {
    local file=$copy/$1 nth=$2 old=$3 new=$4 text head='' rest
    text=$(cat "$file"; echo x)
    old=${old//'\n'/$'\n'}
    new=${new//'\n'/$'\n'}
    rest=${text%x}
    while :; do
        case $rest in
            *"$old"*) ;;
            *) echo "$1 has no such place (it is number $2): $3"; exit 2 ;;
        esac
        head+=${rest%%"$old"*}
        rest=${rest#*"$old"}
        [ "$nth" -gt 1 ] || break
        head+=$old
        nth=$((nth - 1))
    done
    printf '%s%s%s' "$head" "$new" "$rest" >"$file"
}

# Whether the name contains one of the patterns.
chosen() {
    [ "${#patterns[@]}" -gt 0 ] || return 0
    local pattern
    for pattern in "${patterns[@]}"; do
        case $1 in *"$pattern"*) return 0 ;; esac
    done
    return 1
}

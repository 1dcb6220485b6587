# What the steps of these templates run. A thing is a file in `things`. Making it and removing it takes its time, and
# when that begins and ends is written down. With the argument `broken` it cannot be made, with `breakable` not before
# a file `mended` is there.
read -r request
verb=${request#*\"verb\":\"}
verb=${verb%%\"*}
resource=${request#*\"resource\":\"}
resource=${resource%%\"*}
say() {
    printf '%s %s %s %s %s\n' "$(date +%s%N)" "$$" "$1" "$verb" "$resource" >> things.log
}
case $verb in
ensure)
    say begin
    sleep 0.05
    if [ "$1" = broken ] || { [ "$1" = breakable ] && [ ! -e mended ]; }; then
        echo 'it is broken' >&2
        exit 1
    fi
    mkdir -p things
    : >> "things/$resource"
    sleep 0.05
    say end
    echo '{}'
    ;;
remove)
    say begin
    sleep 0.02
    rm -f "things/$resource"
    sleep 0.02
    say end
    echo '{}'
    ;;
observe)
    if [ -e "things/$resource" ]; then echo '{"present":true,"healthy":true}'; else echo '{"present":false}'; fi
    ;;
esac

# The command that the steps of these templates run. It creates or removes a file in `things`, slowly, and records the
# start and the end of each call. With the argument `broken` the creation always fails, with `breakable` until a file
# `repaired` exists.
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
    if [ "$1" = broken ] || { [ "$1" = breakable ] && [ ! -e repaired ]; }; then
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

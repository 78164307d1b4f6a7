#!/bin/sh
# Rotates a role's key, and watches who takes up the new one. It needs vault or bao,
# awk, and a token with the policy of a pipeline (../policies/rotator.hcl); it never
# sees a key. docs/ci.md explains it.
set -u
LC_ALL=C
export LC_ALL

usage() {
	cat <<'EOF'
Usage: rotate-and-watch.sh -role NAME -request-id ID [flags]

  -role NAME        the role whose key is rotated
  -request-id ID    names this rotation: a run with the same id does not rotate again, but
                    goes on watching. 8 to 100 of A-Z a-z 0-9 . _ : / -
  -mount PATH       where the engine is mounted (default apikeys)
  -grace TIME       how long the old version stays valid (default: the role's grace_period)
  -reason TEXT      kept in the role's history
  -check COMMAND    says whether the new version is accepted: status 0 yes, 1 no, anything
                    else is no answer. It may take a minute
  -stage            make the new version, have -check accept it, then make it current
  -for TIME         how long to watch at most (default 30m)
  -every TIME       how long between two looks (default 15s)
  -quiet TIME       the old version is in use if it was used within this time (default: a
                    quarter of its grace, at most half of -for). It is also how near its
                    end an old version that is in use is given more time
  -extend TIME      how much more time (default 24h)

Times are seconds, or 90s, 15m, 24h, 7d. The server and the token are those of vault and
bao: VAULT_ADDR, VAULT_TOKEN and so on. CLI=/path/to/bao names the program.

Exit status:
  0  the new version is in use or was accepted by -check, and the old one is not in use
  1  the server refused, or could not be reached
  2  wrong flags
  3  the old version is in use near its end: its end was put off. Find who uses it
  4  the time is over and nothing is decided: run it again, with the same request id
  5  the new version was refused, and taken back or not made current
  6  somebody else changed the role meanwhile
EOF
}

say() { printf 'rotate-and-watch: %s\n' "$*"; }

die() {
	status=$1
	shift
	say "$@" >&2
	exit "$status"
}

wrong() { die 2 "$@"; }

# seconds <flag> <time>: the time in seconds, in $seconds.
seconds() {
	number=${2%[smhd]}
	case $number in
	'' | *[!0-9]* | ?????????*) wrong "$1: $2: is no time: give seconds, or 90s, 15m, 24h, 7d" ;;
	0?*) wrong "$1: $2: begins with a zero" ;;
	esac
	case $2 in
	*m) seconds=$((number * 60)) ;;
	*h) seconds=$((number * 3600)) ;;
	*d) seconds=$((number * 86400)) ;;
	*) seconds=$number ;;
	esac
}

role='' id='' mount=apikeys grace='' reason='' check='' stage='' limit=30m every=15s quiet='' extend=24h
while [ $# -gt 0 ]; do
	flag=$1 value=''
	case $flag in --*) flag=${flag#-} ;; esac
	shift
	case $flag in
	-h | -help)
		usage
		exit 0
		;;
	-stage)
		stage=yes
		continue
		;;
	-*=*)
		value=${flag#*=}
		flag=${flag%%=*}
		;;
	-role | -request-id | -mount | -grace | -reason | -check | -for | -every | -quiet | -extend)
		[ $# -gt 0 ] || wrong "$flag: its value is missing"
		value=$1
		shift
		;;
	*) wrong "$flag: is no flag; -h lists them" ;;
	esac
	[ -n "$value" ] || wrong "$flag: is empty; an unset variable looks like this"
	case $flag in
	-role) role=$value ;;
	-request-id) id=$value ;;
	-mount) mount=$value ;;
	-grace) grace=$value ;;
	-reason) reason=$value ;;
	-check) check=$value ;;
	-for) limit=$value ;;
	-every) every=$value ;;
	-quiet) quiet=$value ;;
	-extend) extend=$value ;;
	*) wrong "$flag: is no flag; -h lists them" ;;
	esac
done

[ -n "$role" ] || wrong "-role: is missing"
case $role in *[!A-Za-z0-9._-]* | -*) wrong "-role: $role: is no name of a role" ;; esac
[ -n "$id" ] || wrong "-request-id: is missing: give what stays the same when the job is run again"
case $id in *[!A-Za-z0-9._:/-]*) wrong "-request-id: $id: has characters other than A-Z a-z 0-9 . _ : / -" ;; esac
if [ ${#id} -lt 8 ] || [ ${#id} -gt 100 ]; then
	wrong "-request-id: $id: has ${#id} characters: give 8 to 100"
fi
case $mount in /* | */ | -* | *[!A-Za-z0-9._/-]*) wrong "-mount: $mount: is no path such as apikeys" ;; esac
case $reason in @* | -) wrong "-reason: $reason: vault and bao would read it from elsewhere: begin with a letter" ;; esac
[ -z "$stage" ] || [ -n "$check" ] || wrong "-stage: waits for -check to accept the new version: give both"
if [ -n "$grace" ]; then
	seconds -grace "$grace"
	grace=$seconds
fi
seconds -for "$limit"
limit=$seconds
seconds -every "$every"
every=$seconds
[ "$every" -gt 0 ] || wrong "-every: is 0"
if [ -n "$quiet" ]; then
	seconds -quiet "$quiet"
	quiet=$seconds
	[ "$quiet" -gt 0 ] || wrong "-quiet: is 0"
fi
seconds -extend "$extend"
extend=$seconds
[ "$extend" -gt 0 ] || wrong "-extend: is 0"

cli=${CLI:-}
if [ -z "$cli" ]; then
	cli=$(command -v vault || command -v bao) || wrong "neither vault nor bao is there: install one, or name it in CLI"
fi
command -v "$cli" >/dev/null || wrong "CLI: $cli: is not there"

tmp=$(mktemp -d) || die 1 "mktemp failed"
checker=''
finish() {
	# A check that is under way ends with this.
	[ -z "$checker" ] || kill "$checker" 2>/dev/null
	rm -rf "$tmp"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

begin=$(date +%s)
# over: the time is up. The machine's clock is asked for nothing else.
over() { [ $(($(date +%s) - begin)) -ge "$limit" ]; }

# flat: JSON as lines of a path, a tab and a value; texts as they are written, escapes
# included.
flat() {
	awk '{
		s = $0
		while (s != "") {
			c = substr(s, 1, 1)
			if (c ~ /[ \t\r]/) {
				sub(/^[ \t\r]+/, "", s)
				continue
			}
			if (index("{[}],:", c)) {
				s = substr(s, 2)
				if (c == "{" || c == "[") {
					d++
					kind[d] = c
					name[d] = c == "[" ? 0 : ""
					key = c == "{"
				} else if (c == "}" || c == "]") {
					d--
					key = 0
				} else if (c == ",") {
					if (kind[d] == "[")
						name[d]++
					else
						key = 1
				} else
					key = 0
				continue
			}
			if (match(s, /^"([^"\\]|\\.)*"/))
				v = substr(s, 2, RLENGTH - 2)
			else if (match(s, /^[^],} \t\r]+/))
				v = substr(s, 1, RLENGTH)
			else
				exit 1
			s = substr(s, RLENGTH + 1)
			if (key) {
				name[d] = v
				continue
			}
			p = name[1]
			for (i = 2; i <= d; i++)
				p = p "." name[i]
			print p "\t" v
		}
	}'
}

# ask <words of vault>: the answer is in $tmp/answer. Status 0; 1: refused, what was said
# is in $tmp/said; 2: nobody could be asked.
ask() {
	verb=$1
	shift
	if "$cli" "$verb" -format=json "$@" </dev/null >"$tmp/json" 2>"$tmp/said"; then
		flat <"$tmp/json" >"$tmp/answer"
		return
	fi
	cat "$tmp/json" >>"$tmp/said"
	! refused || return 1
	return 2
}

# refused: what the program said last is a refusal that will not pass by itself. A quota
# passes, and so does a node that is behind.
refused() { grep -q -e '^Code: 4' -e '^No value found' "$tmp/said" && ! grep -q '^Code: 4\(08\|12\|29\)' "$tmp/said"; }

# said: what the program said last, for a log.
said() { grep -v -e '^$' -e '^URL: ' "$tmp/said" | tail -5 >&2; }

# do_it <what> <words of vault>: asks until there is an answer or the time is over, three
# times at least: who lost an answer does not know what was done.
do_it() {
	what=$1 tries=0
	shift
	while :; do
		ask "$@" && return
		if [ $? = 1 ]; then
			said
			die 1 "$what: refused"
		fi
		tries=$((tries + 1))
		if over && [ "$tries" -ge 3 ]; then
			said
			die 1 "$what: nobody could be asked"
		fi
		sleep "$every"
	done
}

# of <path>: a value of the last answer; empty if it has none.
of() { awk -F '\t' -v p="data.$1" '$1 == p { print substr($0, length(p) + 2); exit }' "$tmp/answer"; }

# unix: a time as seconds since 1970; 0 for none.
unix() {
	echo "$1" | awk '{
		if (length($0) < 20) { print 0; exit }
		y = substr($0, 1, 4) + 0; m = substr($0, 6, 2) + 0; d = substr($0, 9, 2) + 0
		if (m <= 2) { y--; m += 12 }
		days = 365 * y + int(y / 4) - int(y / 100) + int(y / 400) + int((153 * (m - 3) + 2) / 5) + d - 719469
		printf "%d\n", days * 86400 + substr($0, 12, 2) * 3600 + substr($0, 15, 2) * 60 + substr($0, 18, 2)
	}'
}

# place <version>: where status lists it, as versions.0; empty if it does not.
place() { awk -F '\t' -v n="$1" '$1 ~ /^data\.versions\.[0-9]+\.version$/ && $2 == n { sub(/^data\./, "", $1); sub(/\.version$/, "", $1); print $1; exit }' "$tmp/answer"; }

# accepted <place>: how often a version was good, as seen and as caches reported it.
accepted() { echo $(($(of "$1.usage.accepted") + $(of "$1.usage.reported.accepted"))); }

# last <place>: when it was good the last time.
last() {
	seen=$(unix "$(of "$1.usage.last_accepted")") reported=$(unix "$(of "$1.usage.reported.last_accepted")")
	if [ "$seen" -gt "$reported" ]; then echo "$seen"; else echo "$reported"; fi
}

# clients <place>: by whom, as far as verify was told.
clients() {
	awk -F '\t' -v p="data.$1.usage." 'index($1, p) == 1 && $1 ~ /\.clients\.[0-9]+\.client$/ && !seen[$2]++ { printf "%s%s", n++ ? ", " : "", substr($0, length($1) + 2) }
		END { print n ? "" : "callers that give no name" }' "$tmp/answer"
}

# run_check <version> <key id> <state>: 0, 1, or 2 for no answer. It has a minute.
run_check() {
	APIKEYS_ROLE=$role APIKEYS_VERSION=$1 APIKEYS_KEY_ID=$2 APIKEYS_STATE=$3 sh -c "$check" </dev/null &
	checker=$!
	(
		n=0
		while kill -0 "$checker"; do
			[ "$n" -lt 60 ] || kill "$checker"
			n=$((n + 1))
			sleep 1
		done
	) >/dev/null 2>&1 &
	wait "$checker"
	result=$?
	checker=''
	[ "$result" -le 1 ] || result=2
	return "$result"
}

# try_check <version> <key id> <state>: remembers in $checked whether the new version was
# accepted (yes), refused twice running (no), or neither.
checked=''
try_check() {
	[ -n "$check" ] && [ "$checked" != yes ] || return 0
	run_check "$@"
	result=$?
	if [ "$result" = 1 ]; then
		say "the check refuses version $1"
		sleep "$pause"
		run_check "$@"
		result=$?
		[ "$result" != 1 ] || checked=no
	fi
	if [ "$result" = 0 ]; then
		checked=yes
		say "the check accepts version $1"
	fi
}

# The rotation. The same id with the same values is answered as the first time.
set -- write "$mount/rotate/$role" "request_id=$id"
[ -z "$stage" ] || set -- "$@" stage=true
[ -z "$grace" ] || [ -n "$stage" ] || set -- "$@" "grace_period=$grace"
[ -z "$reason" ] || set -- "$@" "reason=$reason"
do_it "rotate/$role" "$@"
new=$(of version) old=$(of previous_version) key=$(of key_id)
case $new in '' | *[!0-9]*) die 1 "rotate/$role: the answer names no version" ;; esac
if [ "$(of replayed)" = true ]; then
	say "version $new ($key) was made at $(of replayed_at) by this request id"
else
	say "version $new ($key) is made"
fi

# The time for watching begins now.
begin=$(date +%s)
pause=$every told=''
while :; do
	if ! ask read "$mount/status/$role"; then
		if refused; then
			said
			die 1 "status/$role: refused"
		fi
		if over; then
			said
			die 1 "status/$role: nobody could be asked"
		fi
		sleep "$pause"
		continue
	fi
	now=$(unix "$(of now)")
	n=$(place "$new") o=''
	[ "${old:-0}" = 0 ] || o=$(place "$old")
	state=$(of "$n.state")
	[ -n "$n" ] || state=gone

	case $state in
	current) ;;
	pending)
		[ -n "$stage" ] || die 6 "version $new is pending, and was not staged by this: see status/$role"
		try_check "$new" "$key" pending
		case $checked in
		yes)
			set -- write "$mount/promote/$role" "version=$new" "request_id=$id/promote"
			[ -z "$grace" ] || set -- "$@" "grace_period=$grace"
			[ -z "$reason" ] || set -- "$@" "reason=$reason"
			do_it "promote/$role" "$@"
			say "version $new is made current"
			continue
			;;
		no) die 5 "version $new is refused and was not made current: end it with revoke/$role version=$new" ;;
		esac
		! over || die 4 "version $new was not accepted in time, and was not made current: run this again, or end it with revoke/$role version=$new"
		sleep "$pause"
		continue
		;;
	withdrawn) die 5 "version $new was taken back by a rollback" ;;
	retired)
		[ "$(of "$n.reason")" != rolled_back ] || die 5 "version $new was taken back by a rollback"
		die 6 "version $new is retired: another one was made since"
		;;
	*) die 6 "version $new is $state: somebody else changed the role; see history/$role" ;;
	esac

	# In use is what was accepted since the change, and lately. Nothing seen is no evidence
	# for anything: counts may be late, and a job may run once a night.
	since=$(unix "$(of "$n.activated")") uses=$(accepted "$n")
	old_state=none ends=0 used=0
	if [ -n "$o" ]; then
		old_state=$(of "$o.state") used=$(last "$o")
		ends=$(unix "$(of "$o.ends")")
		[ "$old_state" = previous ] || ends=$(unix "$(of "$o.ended")")
	fi
	window=$quiet
	if [ -z "$window" ]; then
		window=$(((ends - since) / 4))
		[ "$window" -le $((limit / 2)) ] || window=$((limit / 2))
	fi
	[ "$window" -ge 1 ] || window=1
	# Two looks in the time before the end, however short it is.
	pause=$every
	[ "$pause" -le $((window / 2)) ] || pause=$((window / 2))
	[ "$pause" -ge 1 ] || pause=1
	in_use=''
	if [ "$used" -gt "$since" ]; then
		if [ "$old_state" = previous ]; then
			[ "$used" -lt $((now - window)) ] || in_use=yes
		else
			[ "$used" -lt $((ends - window)) ] || in_use=yes
		fi
	fi

	try_check "$new" "$key" current
	if [ "$checked" = no ]; then
		[ "$old_state" = previous ] || die 5 "version $new is refused, and version ${old:-0} is $old_state: there is nothing to go back to. See status/$role"
		do_it "rollback/$role" write "$mount/rollback/$role" "cas=$new" "to_version=$old" "request_id=$id/rollback" "reason=version $new is refused"
		die 5 "version $new is refused: version $old is current again"
	fi

	what="version $new: accepted $uses times; version ${old:-0}: $old_state"
	[ -z "$in_use" ] || what="$what, in use by $(clients "$o")"
	[ "$old_state" != previous ] || what="$what, ends $(of "$o.ends")"
	if [ "$what" != "$told" ]; then
		say "$what"
		told=$what
	fi

	if [ -n "$in_use" ] && [ "$old_state" != previous ]; then
		die 3 "version $old was in use until its end ($old_state): whoever uses it is refused now"
	fi
	if [ -n "$in_use" ] && [ "$now" -ge $((ends - window)) ]; then
		for try in 1 2 3; do
			ask write "$mount/grace/$role" "version=$old" "valid_until=$((ends + extend))" "request_id=$id/extend/$ends" \
				"reason=version $old is in use near its end"
			case $? in
			0) die 3 "version $old is in use near its end: it ends at $(of valid_until) now. Find who uses it" ;;
			1) break ;;
			esac
			sleep "$try"
		done
		said
		die 3 "version $old is in use near its end, and its end could not be put off"
	fi
	evidence=''
	[ "$uses" -eq 0 ] && [ "$checked" != yes ] || evidence=yes
	if [ -n "$evidence" ] && [ "$old_state" != previous ]; then
		say "version $new is accepted, and version ${old:-0} has ended"
		exit 0
	fi
	if over; then
		[ -n "$evidence" ] || die 4 "nobody has used version $new yet: that is no evidence for it or against it. Run this again, with the same request id"
		[ -z "$in_use" ] || die 4 "version $old is in use still, and ends at $(of "$o.ends"): run this again before that, with the same request id"
		[ "$now" -ge $((since + window)) ] ||
			die 4 "version $old was not seen in use, but for a shorter time than -quiet ($window seconds): run this again, with the same request id"
		say "version $new is accepted; version $old was not used for $window seconds, and ends at $(of "$o.ends")"
		exit 0
	fi
	sleep "$pause"
done

# The plan of a test run: which binaries and scripts, in which ways, in which order. Sourced by ./dev.
#
# Every suite, compiled or script, speaks the same lines (tests/support/main.cpp, checks.py): PASS, FAIL and SKIPPED for
# each case, RESULT at the end. A suite that dies before its RESULT is counted by the lines it said, plus one failure.
# The quick and telling come first, the sanitizers' last: they are compiled meanwhile, with what the tests leave of the
# processors. `--all` adds the ways that seldom tell more.
#
# Always true: the last line of a run is "N passed, N failed, N skipped"; before it stands each skipped case with its
# reason and each failed one with its log; the status is 0 only if something passed and nothing failed.

passed=0 failed=0 skipped=0
declare -a skips=() failures=()
filter='' all=false

# What a log ends with: the last case that ended, and the last three lines that say something.
ending() {
  local last
  last=$({ grep -aE '^(PASS|FAIL|SKIPPED) ' "$1" || true; } | tail -n 1 | cut -c1-160)
  printf 'the last case that ended: %s; the last it said: ' "${last:-none}"
  { grep -av '^[[:space:]]*$' "$1" || true; } | tail -n 3 | tr -d '\000' | cut -c1-160 | awk '{ printf "%s%s", (NR > 1 ? " | " : ""), $0 }'
}

# suite NAME SECONDS COMMAND...: runs it, adds up, shows one line. As a suite beside, it runs meanwhile, and is counted by
# suites_beside, which waits for all of them.
declare -a beside=()
suite() {
  begin_suite "$@"
  end_suite "$1" "$2"
}
suite_beside() {
  begin_suite "$@" &
  beside+=("$!" "$1" "$2")
}
suites_beside() {
  local i
  for ((i = 0; i < ${#beside[@]}; i += 3)); do
    wait "${beside[i]}" || true
    end_suite "${beside[i + 1]}" "${beside[i + 2]}"
  done
  beside=()
}

log_of() { printf 'build/logs/%s.log' "${1//[^a-zA-Z0-9_-]/-}"; }

# Its status and how long it took stand beside its log.
begin_suite() {
  local seconds=$2 log status=0 begun=$SECONDS
  log=$(log_of "$1")
  shift 2
  mkdir -p build/logs
  timeout -k 10 "$seconds" "$@" >"$log" 2>&1 || status=$?
  printf '%d %d\n' "$status" $((SECONDS - begun)) >"$log.status"
}

end_suite() {
  local name=$1 seconds=$2 log status took=0 result p f s line
  log=$(log_of "$name")
  read -r status took <"$log.status" || status=137
  rm -f "$log.status"
  result=$(grep -aE '^RESULT passed=[0-9]+ failed=[0-9]+ skipped=[0-9]+$' "$log" | tail -n 1) || true
  if [[ $result =~ passed=([0-9]+)\ failed=([0-9]+)\ skipped=([0-9]+) ]]; then
    p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
    if ((status != 0 && f == 0)); then # a sanitizer's report at the end, a crash in a destructor
      f=1
      failures+=("[$name] ended with status $status though no case failed")
    fi
  else
    p=$(grep -acE '^PASS ' "$log") || true
    s=$(grep -acE '^SKIPPED ' "$log") || true
    f=$(grep -acE '^FAIL ' "$log") || true
    f=$((f + 1))
    if ((status == 124 || status == 137)); then line="did not end in $seconds s"; else line="ended with status $status before its result"; fi
    failures+=("[$name] $line; $(ending "$log")")
  fi
  while IFS= read -r line; do skips+=("[$name] ${line#SKIPPED }"); done < <(grep -aE '^SKIPPED ' "$log")
  while IFS= read -r line; do failures+=("[$name] ${line#FAIL } (in $log)"); done < <(grep -aE '^FAIL ' "$log")
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if ((p + f + s > 0)); then printf '  %-38s %5d passed %3d failed %3d skipped %5d s\n' "$name" "$p" "$f" "$s" "$took"; fi
}

# one KIND NAME TEXT: a finding of the plan's own.
one() {
  case $1 in
    pass) passed=$((passed + 1)) ;;
    fail) failed=$((failed + 1)); failures+=("[$2] $3") ;;
    skip) skipped=$((skipped + 1)); skips+=("[$2] $3") ;;
  esac
}

# The arguments by which a doctest binary runs the chosen cases only.
cases() { if [[ -n $filter ]]; then printf -- '--test-case=*%s*' "${filter//,/\\,}"; else printf -- '--no-version=true'; fi; }

# binaries TREE SUFFIX SECONDS [VARIABLE=VALUE|COMMAND]...: each test binary of the tree, run that way; the longest beside the
# others, for all of them wait more than they compute.
binaries() {
  local tree=$1 suffix=$2 seconds=$3 program run
  shift 3
  for program in "$tree"/tests/{unit,faults,process,hooks,patch,patch_near}_tests; do
    if [[ $program == */unit_tests ]]; then run=suite_beside; else run=suite; fi
    if [[ -x $program ]]; then "$run" "${program##*/} $suffix" "$seconds" env -u RINGLET_ENGINE RINGLET_BUILD_DIR="$PWD/$tree" "$@" "$program" "$(cases)"; fi
  done
  suites_beside
}

script() { # script HOW FILE SECONDS: as a suite, or as one beside
  local folder
  folder=$(basename "$(dirname "$2")")
  "$1" "${folder%s}: $(basename "$2" .py | sed 's/_test$//')" "$3" env RINGLET_BUILD_DIR="$PWD/build" PYTHONDONTWRITEBYTECODE=1 python3 "$2" "$filter"
}
scripts() { # scripts FOLDER SECONDS [BUT]: all of them but one
  local file
  for file in tests/"$1"/*.py; do
    if [[ -e $file && $file != "${3-}" ]]; then script suite "$file" "$2"; fi
  done
}

why_no_uring() { RINGLET_ENGINE=uring build/hooks/launcher/ringlet info 2>&1 | sed -nE 's/.*would be used +none: //p'; }

sanitized() { # sanitized TREE MESON-SANITIZERS BINARIES: what of tests/*_tests is built
  local tree=$1
  configure "$tree" --buildtype=plain -Doptimization=1 -Ddebug=false -Dcpp_args=-g1 -Db_sanitize="$2" -Db_lundef=false -Dbench=disabled -Dexamples=disabled -Dtests=enabled
  compile "$tree" $(ninja -C "$tree" -t targets all | sed -nE "s/^(tests\/($3)_tests|tests\/faults_load(_plain)?): .*/\1/p")
}

build_asan() { sanitized build-asan address,undefined 'unit|process|hooks|faults|patch|patch_near'; }
build_tsan() { sanitized build-tsan thread 'unit|hooks|faults'; }

# While the tests run, which mostly wait, the sanitizers' trees are compiled by what is left of the processors.
compile_sanitized_beside() {
  mkdir -p build/logs
  rm -f build/logs/asan-tried
  set -m # a group of its own, to be ended as one
  (
    renice -n 19 "$BASHPID" >/dev/null
    build_asan || true
    : >build/logs/asan-tried
    build_tsan
  ) >build/logs/sanitized.log 2>&1 &
  sanitized_beside=$!
  set +m
  trap 'kill -- "-$sanitized_beside" 2>/dev/null || true' EXIT
}
sanitized_beside=''

# have_sanitized asan|tsan: whether it could be built.
have_sanitized() {
  if [[ -n $sanitized_beside && $1 == asan ]]; then
    while [[ ! -e build/logs/asan-tried ]] && kill -0 "$sanitized_beside" 2>/dev/null; do sleep 1; done
  elif [[ -n $sanitized_beside ]]; then
    wait "$sanitized_beside" || true
    sanitized_beside=''
    trap - EXIT
  fi
  "build_$1" && return 0
  one fail "build-$1" "does not build (see build-$1/logs/compile.log)"
  return 1
}

part_asan() {
  say "AddressSanitizer, UndefinedBehaviorSanitizer"
  have_sanitized asan || return 0
  local options=(ASAN_OPTIONS=detect_stack_use_after_return=0:exitcode=99 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1)
  binaries build-asan asan 900 "${options[@]}"
  if $all; then binaries build-asan 'asan, epoll' 900 "${options[@]}" RINGLET_ENGINE=epoll; fi
}

part_tsan() {
  say "ThreadSanitizer"
  have_sanitized tsan || return 0
  # GCC 12's ThreadSanitizer does not start where the kernel randomizes addresses by 32 bits.
  local options=(TSAN_OPTIONS=exitcode=66:history_size=4) plain=()
  if setarch "$(uname -m)" -R true 2>/dev/null; then plain=(setarch "$(uname -m)" -R); fi
  suite_beside "unit_tests tsan" 900 env "${options[@]}" "${plain[@]}" build-tsan/tests/unit_tests "$(cases)"
  # It delivers a signal only where one of its own interceptors ends, and has some around the hooks of locks; so a call that a
  # signal is to end, or a lock that parks, does not come to an end there (the load of tests/faults has both).
  local beyond='signal*,std::*,mutex*,locks*,recursive mutex*,error-checking*,condition*,pthread_*,C11*,sem_t*'
  beyond+=',no memory: hooked locks*,the load*,stopped and*,tiny rings*,the kernel refuses*,no hub*,limits*'
  suite "hooks_tests tsan" 900 env "${options[@]}" RINGLET_BUILD_DIR="$PWD/build-tsan" "${plain[@]}" build-tsan/tests/hooks_tests "$(cases)" "--test-case-exclude=$beyond"
  suite "faults_tests tsan" 900 env "${options[@]}" RINGLET_BUILD_DIR="$PWD/build-tsan" "${plain[@]}" build-tsan/tests/faults_tests "$(cases)" "--test-case-exclude=$beyond"
  one skip "hooks_tests, faults_tests tsan" "$beyond: ThreadSanitizer's own interceptors hold back signals and enclose the hooks of locks"
  suites_beside
  if $all; then suite "unit_tests tsan, epoll" 900 env "${options[@]}" RINGLET_ENGINE=epoll "${plain[@]}" build-tsan/tests/unit_tests "$(cases)"; fi
}

part_valgrind() {
  say "Valgrind"
  # What depends on our telling it of each switch; the rest would only be slow.
  local chosen
  chosen=$(cases)
  [[ -n $filter ]] || chosen='--test-case=context*,stack*,greenlet*,switch*,fiber*,spawn*'
  suite "unit_tests valgrind" 900 env RINGLET_ENGINE=epoll valgrind -q --error-exitcode=97 --leak-check=no build/tests/unit_tests "$chosen"
}

part_clang() {
  say "clang++"
  CXX=clang++ configure build-clang --buildtype=debugoptimized -Dbench=disabled -Dtests=enabled
  if compile build-clang; then binaries build-clang clang 600; else one fail clang "does not build (see build-clang/logs/compile.log)"; fi
}

part_optimized() {
  say "Optimized (-O3)"
  configure build-optimized --buildtype=release -Dbench=disabled -Dtests=enabled
  if ! compile build-optimized; then
    one fail optimized "does not build (see build-optimized/logs/compile.log)"
    return 0
  fi
  binaries build-optimized optimized 600
  suite "thread: battery optimized" 900 env RINGLET_BUILD_DIR="$PWD/build-optimized" python3 tests/threads/battery_test.py "$filter"
}

# Three ways of waiting: the ring, epoll by wish, epoll because the ring is refused.
part_engines() {
  local why program log
  say "Unit, hook and example tests"
  why=$(why_no_uring)
  if [[ -z $why ]]; then binaries build uring 600 RINGLET_ENGINE=uring; else one skip "tests on uring" "$why"; fi
  binaries build epoll 600 RINGLET_ENGINE=epoll
  binaries build 'no io_uring' 600 build/tests/no_uring
  log=build/logs/unit_tests-no-io_uring.log
  if [[ -z $filter ]]; then
    if grep -aqE '^ringlet: io_uring is refused \(io_uring_setup: EPERM; a seccomp filter.*using the epoll engine' "$log"; then
      one pass
    else
      one fail "no io_uring" "no line on stderr told that io_uring is refused and why (in $log)"
    fi
  fi
  while IFS= read -r program; do
    suite "example: ${program##*/}" 300 env RINGLET_BUILD_DIR="$PWD/build" "$program" "$(cases)"
  done < <(find build/examples -type f -executable \( -name '*_test' -o -name '*_tests' \) 2>/dev/null | sort)
}

summary() {
  local line
  say ''
  for line in "${failures[@]}"; do printf 'FAILED  %s\n' "$line"; done
  for line in "${skips[@]}"; do printf 'SKIPPED %s\n' "$line"; done
  if ((passed + failed == 0)); then say "Nothing ran${filter:+: no case has '$filter' in its name}."; fi
  say "(in $((SECONDS / 60)) min $((SECONDS % 60)) s)"
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  ((failed == 0 && passed > 0)) || exit 1
}

read_arguments() {
  while (($#)); do
    case $1 in
      --all) all=true ;;
      -*) die "$verb: there is no option '$1'" ;;
      *) filter=$1 ;;
    esac
    shift
  done
}

# All but the benchmarks, which prove nothing here and cost a minute to compile; --all compiles them and starts each.
compiled_for_tests() {
  default_tree
  local targets
  ninja -C build build.ninja >/dev/null || true # a tree of yesterday's knows yesterday's targets
  mapfile -t targets < <(ninja -C build -t targets all | sed -nE 's/^((src|hooks|tests|examples)\/[^:]*): [a-z_]*LINKER.*/\1/p')
  compile build "${targets[@]}"
}

part_bench() {
  say "Benchmarks"
  local program name
  if ! compile build; then
    one fail bench "does not build (see build/logs/compile.log)"
    return 0
  fi
  for program in build/bench/bench_*; do
    if [[ ! -f $program || ! -x $program ]]; then continue; fi
    name=${program##*/}
    if timeout -k 10 120 "$program" --quick --json /dev/null >"build/logs/$name.log" 2>&1; then one pass; else one fail "$name" "--quick ended with status $? (in build/logs/$name.log)"; fi
  done
}

run_plan() {
  read_arguments "$@"
  if $all; then export RINGLET_STRESS=full; fi # tests/sync/stress_test.cpp
  if ! (compiled_for_tests); then
    one fail build "the tree does not build"
    summary
  fi
  if [[ -z $filter ]] || $all; then compile_sanitized_beside; fi
  say "Structure"
  scripts structure 600
  part_engines
  say "Programs"
  local conformance=tests/threads/transparency_test.py slow
  slow=$($all && echo 3600 || echo 600)
  script suite_beside "$conformance" "$slow" # waits, and waits
  scripts programs 900
  scripts threads "$slow" "$conformance"
  suites_beside
  scripts clients 600
  scripts random "$($all && echo 9000 || echo 2400)"
  # A name asks about one thing, and wants its answer soon.
  if [[ -z $filter ]] || $all; then
    part_asan
    part_tsan
    part_valgrind
    if $all; then
      part_optimized
      part_bench
    fi
  fi
  summary
}

run_only() { # run_only PART [NAME]
  local part=$1
  shift
  read_arguments "$@"
  if [[ $part == valgrind ]]; then compiled_for_tests || exit 1; fi
  "part_$part"
  summary
}

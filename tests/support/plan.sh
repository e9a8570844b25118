# The plan of a test run: which binaries and scripts, in which ways, in which order. Sourced by ./dev.
#
# Every suite, compiled or script, speaks the same lines (tests/support/main.cpp, checks.py): PASS, FAIL and SKIPPED for
# each case, RESULT at the end. A suite that dies before its RESULT is counted by the lines it said, plus one failure.
# The quick and telling come first, the sanitizers' builds last; `--all` adds the ways that seldom tell more.
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

# suite NAME SECONDS COMMAND...: runs it, adds up, shows one line.
suite() {
  local name=$1 seconds=$2 log=build/logs/${1//[^a-zA-Z0-9_-]/-}.log status=0 result p f s line begun=$SECONDS
  shift 2
  mkdir -p build/logs
  timeout -k 10 "$seconds" "$@" >"$log" 2>&1 || status=$?
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
  if ((p + f + s > 0)); then printf '  %-38s %5d passed %3d failed %3d skipped %5d s\n' "$name" "$p" "$f" "$s" $((SECONDS - begun)); fi
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

# binaries TREE SUFFIX SECONDS [VARIABLE=VALUE|COMMAND]...: each test binary of the tree, run that way.
binaries() {
  local tree=$1 suffix=$2 seconds=$3 program
  shift 3
  for program in "$tree"/tests/unit_tests "$tree"/tests/faults_tests "$tree"/tests/process_tests "$tree"/tests/hooks_tests "$tree"/tests/patch_tests "$tree"/tests/patch_near_tests; do
    if [[ -x $program ]]; then suite "${program##*/} $suffix" "$seconds" env -u RINGLET_ENGINE RINGLET_BUILD_DIR="$PWD/$tree" "$@" "$program" "$(cases)"; fi
  done
}

scripts() { # scripts FOLDER SECONDS
  local file
  for file in tests/"$1"/*.py; do
    [[ -e $file ]] || continue
    suite "${1%s}: $(basename "$file" .py | sed 's/_test$//')" "$2" env RINGLET_BUILD_DIR="$PWD/build" PYTHONDONTWRITEBYTECODE=1 python3 "$file" "$filter"
  done
}

why_no_uring() { RINGLET_ENGINE=uring build/hooks/launcher/ringlet info 2>&1 | sed -nE 's/.*would be used +none: //p'; }

sanitized() { # sanitized TREE MESON-SANITIZERS
  local tree=$1
  configure "$tree" --buildtype=plain -Doptimization=1 -Ddebug=false -Dcpp_args=-g1 -Db_sanitize="$2" -Db_lundef=false -Dbench=disabled -Dexamples=disabled -Dtests=enabled
  if compile "$tree" $(ninja -C "$tree" -t targets all | sed -nE 's/^(tests\/(unit|process|hooks|faults|patch|patch_near)_tests|tests\/faults_load(_plain)?): .*/\1/p'); then return 0; fi
  one fail "$tree" "does not build (see $tree/logs/compile.log)"
  return 1
}

part_asan() {
  say "AddressSanitizer, UndefinedBehaviorSanitizer"
  sanitized build-asan address,undefined || return 0
  local options=(ASAN_OPTIONS=detect_stack_use_after_return=0:exitcode=99 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1)
  binaries build-asan asan 900 "${options[@]}"
  if $all; then binaries build-asan 'asan, epoll' 900 "${options[@]}" RINGLET_ENGINE=epoll; fi
}

part_tsan() {
  say "ThreadSanitizer"
  sanitized build-tsan thread || return 0
  # GCC 12's ThreadSanitizer does not start where the kernel randomizes addresses by 32 bits.
  local options=(TSAN_OPTIONS=exitcode=66:history_size=4) plain=()
  if setarch "$(uname -m)" -R true 2>/dev/null; then plain=(setarch "$(uname -m)" -R); fi
  suite "unit_tests tsan" 900 env "${options[@]}" "${plain[@]}" build-tsan/tests/unit_tests "$(cases)"
  # It delivers a signal only where one of its own interceptors ends, and has some around the hooks of locks; so a call that a
  # signal is to end, or a lock that parks, does not come to an end there (the load of tests/faults has both).
  local beyond='signal*,std::*,mutex*,locks*,recursive mutex*,error-checking*,condition*,pthread_*,C11*,sem_t*'
  beyond+=',no memory: hooked locks*,the load*,stopped and*,tiny rings*,the kernel refuses*,no hub*,limits*'
  suite "hooks_tests tsan" 900 env "${options[@]}" RINGLET_BUILD_DIR="$PWD/build-tsan" "${plain[@]}" build-tsan/tests/hooks_tests "$(cases)" "--test-case-exclude=$beyond"
  suite "faults_tests tsan" 900 env "${options[@]}" RINGLET_BUILD_DIR="$PWD/build-tsan" "${plain[@]}" build-tsan/tests/faults_tests "$(cases)" "--test-case-exclude=$beyond"
  one skip "hooks_tests, faults_tests tsan" "$beyond: ThreadSanitizer's own interceptors hold back signals and enclose the hooks of locks"
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
    if timeout -k 10 120 "$program" --quick >"build/logs/$name.log" 2>&1; then one pass; else one fail "$name" "--quick ended with status $? (in build/logs/$name.log)"; fi
  done
}

run_plan() {
  read_arguments "$@"
  if $all; then export RINGLET_STRESS=full; fi # tests/sync/stress_test.cpp
  if ! (compiled_for_tests); then
    one fail build "the tree does not build"
    summary
  fi
  say "Structure"
  scripts structure 300
  part_engines
  say "Programs"
  scripts programs 900
  scripts threads "$($all && echo 3600 || echo 600)"
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

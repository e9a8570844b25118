#pragma once
// A pool of worker processes, for work that computes.
//
//   int square(int n) { return n * n; }
//   ringlet::process_pool pool;                                       // as many workers as we may use processors
//   pool.apply(square, 7);                                            // 49; this fiber parks, the others run on
//   pool.apply_async(square, 8).then([](int n) { ... });              // a callback, in a fiber of this thread
//   std::vector<int> all = pool.map(square, std::vector{1, 2, 3});
//   for (int n : pool.imap(square, numbers)) progress(n);             // in order, as they come
//
// A task is a function or a lambda that captures nothing, with its arguments; arguments and results are packed by msgpack-cxx
// (ipc/message.hpp). What a task throws comes back as remote_error. A task whose worker is killed or crashes fails with
// worker_died, and another worker takes its place: nobody waits for ever (as they do with Python's Pool). A task that the worker
// had not yet begun is done by the next one.
//
// Workers are forks of this process as it is when each starts: they see what was made before. Make, join and destroy a pool
// on one thread; tasks may be given to it from any thread of the process. The destructor terminates. The model is Python's
// multiprocessing.Pool.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <ringlet/async_result.hpp>
#include <ringlet/fiber.hpp>
#include <ringlet/ipc/message.hpp>
#include <ringlet/ipc/pool_core.hpp>
#include <ringlet/process.hpp>
#include <ringlet/queue.hpp>

namespace ringlet {

namespace ipc::detail {

template <class F>
inline constexpr bool is_function_pointer = std::is_pointer_v<F> && std::is_function_v<std::remove_pointer_t<F>>;

template <class F>
concept sendable = is_function_pointer<F> || (std::is_empty_v<F> && std::is_default_constructible_v<F>);

template <class R>
using stored = std::conditional_t<std::is_void_v<R>, std::monostate, std::remove_cvref_t<R>>;

template <class R>
struct item_end {
  std::optional<stored<R>> value;
  std::exception_ptr error;
};

// A chunk, on its way there: the function's address, if it is a pointer, and the items' arguments.
template <class F, class Items>
std::string pack_chunk(const F& f, const Items& items) {
  std::string bytes;
  if constexpr (is_function_pointer<F>) bytes.assign(reinterpret_cast<const char*>(&f), sizeof f);
  string_sink sink{bytes};
  msgpack::pack(sink, items);
  return bytes;
}

// In the worker. Each item's end is [nil, value] or [type, what].
template <class F, class Tuple, class R>
std::string run_chunk(std::string_view bytes) {
  F f = [&] {
    if constexpr (is_function_pointer<F>) {
      F pointer;
      std::memcpy(&pointer, bytes.data(), sizeof pointer);
      bytes.remove_prefix(sizeof pointer);
      return pointer;
    } else {
      return F{};
    }
  }();
  auto items = unpack<std::vector<Tuple>>(bytes);
  std::string reply;
  string_sink sink{reply};
  msgpack::packer<string_sink> packer(sink);
  packer.pack_array(static_cast<std::uint32_t>(items.size()));
  for (auto& each : items) {
    packer.pack_array(2);
    try {
      std::string value;
      if constexpr (std::is_void_v<R>) {
        std::apply(f, std::move(each));
        value = pack(msgpack::type::nil_t());
      } else {
        value = pack(std::apply(f, std::move(each)));
      }
      packer.pack_nil();
      reply += value;
    } catch (const process_exit&) {
      throw;
    } catch (...) {
      std::string what;
      packer.pack(name_of_exception(std::current_exception(), what));
      packer.pack(what);
    }
  }
  return reply;
}

// A chunk, as its giver has it. `ended` is called once for all its items.
template <class R>
struct chunk_job final : pool_job {
  std::size_t count;
  std::function<void(std::vector<item_end<R>>)> ended;

  chunk_job(remote_function f, std::string packed, std::size_t items, std::function<void(std::vector<item_end<R>>)> tell)
      : count(items), ended(std::move(tell)) {
    function = f;
    arguments = std::move(packed);
  }
  ~chunk_job() override {
    if (ended) failed(std::make_exception_ptr(greenlet_exit{}));
  }
  void done(std::string_view result) noexcept override {
    std::vector<item_end<R>> ends(count);
    try {
      const msgpack::object_handle whole = msgpack::unpack(result.data(), result.size());
      const auto entries = whole.get().as<std::vector<std::vector<msgpack::object>>>();
      for (std::size_t i = 0; i < count; ++i) {
        const auto& entry = entries.at(i);
        if (!entry.at(0).is_nil()) {
          ends[i].error = std::make_exception_ptr(remote_error(entry.at(1).template as<std::string>(), entry.at(0).template as<std::string>()));
        } else if constexpr (std::is_void_v<R>) {
          ends[i].value.emplace();
        } else {
          ends[i].value.emplace(entry.at(1).template as<stored<R>>());
        }
      }
    } catch (...) {
      for (auto& each : ends)
        if (!each.value && !each.error) each.error = std::current_exception();
    }
    std::exchange(ended, nullptr)(std::move(ends));
  }
  void failed(const std::exception_ptr& error) noexcept override {
    std::vector<item_end<R>> ends(count);
    for (auto& each : ends) each.error = error;
    if (ended) std::exchange(ended, nullptr)(std::move(ends));
  }
};

}  // namespace ipc::detail

// What becomes of a task: a handle; copies refer to the same result, and dropping them cancels nothing.
template <class R>
class pool_result {
 public:
  // Waits for the result: a reference that is valid as long as a handle lives. Throws remote_error, worker_died, pool_broken;
  // not_ready when the deadline passed first.
  std::add_lvalue_reference_t<R> get(deadline until = never) const { return result_->get(until); }
  bool wait(deadline until = never) const { return result_->wait(until); }
  bool ready() const noexcept { return result_->ready(); }
  bool successful() const noexcept { return result_->successful(); }
  std::exception_ptr exception() const noexcept { return result_->exception(); }
  bool add_listener(detail::listener& l) const noexcept { return result_->add_listener(l); }
  void remove_listener(detail::listener& l) const noexcept { result_->remove_listener(l); }

  // Calls done(result) or failed(exception_ptr) when it is there, in a fiber of the calling thread.
  template <class Done, class Failed = std::nullptr_t>
  const pool_result& then(Done done, Failed failed = nullptr) const {
    spawn({.name = "a task's callback"}, [result = result_, done = std::move(done), failed = std::move(failed)]() mutable {
      result->wait();
      if (auto error = result->exception()) {
        if constexpr (!std::is_null_pointer_v<Failed>) std::invoke(failed, std::move(error));
      } else if constexpr (std::is_void_v<R>) {
        std::invoke(done);
      } else {
        std::invoke(done, result->get());
      }
    });
    return *this;
  }

 private:
  friend class process_pool;
  std::shared_ptr<async_result<R>> result_ = std::make_shared<async_result<R>>();
};

// The results of imap: an input range. Used by one fiber. A task's error is thrown at its place, and reading may go on.
template <class R>
class pool_results {
 public:
  // The next result; empty at the end. Throws what the task threw; not_ready when the deadline passed first.
  std::optional<R> next(deadline until = never) {
    while (true) {
      if (at_ < now_.size()) {
        auto& each = now_[at_++];
        if (each.error) std::rethrow_exception(each.error);
        return std::move(each.value);
      }
      while (under_way_ < window_ && more_ && more_(*this)) ++under_way_;
      if (under_way_ == 0) return std::nullopt;
      if (auto found = kept_.find(next_); ordered_ && found != kept_.end()) {
        take(std::move(found->second));
        kept_.erase(found);
        continue;
      }
      auto got = ended_->get(until);
      if (!got) throw not_ready("ringlet: imap's next result was not there in time");
      if (ordered_ && got->first != next_)
        kept_.emplace(std::move(*got));
      else
        take(std::move(got->second));
    }
  }

  class iterator {
   public:
    using value_type = R;
    using difference_type = std::ptrdiff_t;
    iterator() noexcept = default;
    explicit iterator(pool_results& of) : of_(&of), value_(of.next()) {}
    R& operator*() const noexcept { return *value_; }
    iterator& operator++() {
      value_ = of_->next();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const noexcept { return !value_; }

   private:
    pool_results* of_ = nullptr;
    mutable std::optional<R> value_;
  };
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  friend class process_pool;
  using ends = std::vector<ipc::detail::item_end<R>>;
  void take(ends&& chunk) {
    now_ = std::move(chunk);
    at_ = 0;
    ++next_;
    --under_way_;
  }
  bool ordered_ = true;
  std::size_t window_ = 1;
  std::function<bool(pool_results&)> more_;  // submits the next chunk; false: there is none
  std::shared_ptr<queue<std::pair<std::size_t, ends>>> ended_ = std::make_shared<queue<std::pair<std::size_t, ends>>>();
  std::map<std::size_t, ends> kept_;  // those that came before their turn
  std::size_t submitted_ = 0, next_ = 0, under_way_ = 0, at_ = 0;
  ends now_;
};

class process_pool {
 public:
  process_pool() : process_pool(process_pool_options{}) {}
  explicit process_pool(unsigned workers) : process_pool(process_pool_options{.workers = workers, .initializer = {}}) {}
  explicit process_pool(process_pool_options how) : core_(std::move(how)) {}

  // f(args...) in a worker; waits for its result.
  template <class F, class... Args>
  auto apply(F f, Args&&... args) {
    using R = result_of<F, std::tuple<ipc::detail::carried<Args>...>>;
    auto result = apply_async(f, std::forward<Args>(args)...);
    if constexpr (std::is_void_v<R>)
      result.get();
    else
      return std::move(result.get());
  }
  // The same without waiting. Throws shut_down after close.
  template <class F, class... Args>
  auto apply_async(F f, Args&&... args) {
    using tuple = std::tuple<ipc::detail::carried<Args>...>;
    using R = result_of<F, tuple>;
    pool_result<R> result;
    std::vector<tuple> items;
    items.emplace_back(std::forward<Args>(args)...);
    submit<R>(f, items, [to = result.result_](std::vector<ipc::detail::item_end<R>> ends) {
      if (ends[0].error)
        to->set_exception(std::move(ends[0].error));
      else if constexpr (std::is_void_v<R>)
        to->set();
      else
        to->set(std::move(*ends[0].value));
    });
    return result;
  }

  // f(item) for each item: the results in their order, as a vector (nothing, if f returns void). Items go to workers in chunks;
  // 0: such that each worker gets about four. All are done; then the error of the first item that failed is thrown.
  template <class F, class Range>
  auto map(F f, Range&& items, std::size_t chunk = 0) {
    return map_tuples<as_item>(f, std::forward<Range>(items), chunk);
  }
  // The same with f(a, b, ...) for each item, a tuple or pair.
  template <class F, class Range>
  auto starmap(F f, Range&& items, std::size_t chunk = 0) {
    return map_tuples<as_tuple>(f, std::forward<Range>(items), chunk);
  }

  // f(item) for each item, submitted as the results are read, some chunks for each worker ahead: in their order, or as
  // they end. A range given as an lvalue is not copied and must live as long as the results, as must the pool.
  template <class F, class Range>
  auto imap(F f, Range&& items, std::size_t chunk = 1) {
    return lazily(true, f, std::forward<Range>(items), chunk);
  }
  template <class F, class Range>
  auto imap_unordered(F f, Range&& items, std::size_t chunk = 1) {
    return lazily(false, f, std::forward<Range>(items), chunk);
  }

  // Takes no more tasks; workers end when those that were given are done.
  void close() { core_.close(); }
  // Ends the workers now; what is not done fails with shut_down.
  void terminate() { core_.terminate(); }
  // After either: waits until all workers have ended: true; false when the deadline passed. std::logic_error before.
  bool join(deadline until = never) { return core_.join(until); }

  std::size_t size() const noexcept { return core_.size(); }
  // Of the workers that run now.
  std::vector<int> pids() const { return core_.pids(); }

 private:
  struct as_item {
    template <class Item>
    using tuple = std::tuple<std::remove_cvref_t<Item>>;
  };
  struct as_tuple {
    template <class Item>
    using tuple = std::remove_cvref_t<Item>;
  };
  template <class F, class Tuple>
  using result_of = std::remove_cvref_t<decltype(std::apply(std::declval<F&>(), std::declval<Tuple>()))>;
  template <class Range>
  using item_of = decltype(*std::begin(std::declval<Range&>()));

  template <class R, class F, class Tuple, class Ended>
  void submit(const F& f, const std::vector<Tuple>& items, Ended ended) {
    static_assert(ipc::detail::sendable<F>,
                  "ringlet::process_pool: a task is a function or a lambda that captures nothing; give what it would capture as arguments");
    core_.submit(std::make_unique<ipc::detail::chunk_job<R>>(&ipc::detail::run_chunk<F, Tuple, R>, ipc::detail::pack_chunk(f, items), items.size(),
                                                            std::move(ended)));
  }

  template <class How, class F, class Range>
  auto map_tuples(const F& f, Range&& items, std::size_t chunk) {
    using tuple = typename How::template tuple<item_of<Range>>;
    using R = result_of<F, tuple>;
    using ends = std::vector<ipc::detail::item_end<R>>;
    std::vector<tuple> all;
    for (auto&& each : items) all.emplace_back(std::forward<decltype(each)>(each));
    if (chunk == 0) chunk = std::max<std::size_t>(1, (all.size() + size() * 4 - 1) / (size() * 4));
    std::vector<std::shared_ptr<async_result<ends>>> parts;
    for (std::size_t at = 0; at < all.size(); at += chunk) {
      const auto from = all.begin() + static_cast<std::ptrdiff_t>(at);
      const std::vector<tuple> some(std::make_move_iterator(from), std::make_move_iterator(from + static_cast<std::ptrdiff_t>(std::min(chunk, all.size() - at))));
      parts.push_back(std::make_shared<async_result<ends>>());
      submit<R>(f, some, [to = parts.back()](ends got) { to->set(std::move(got)); });
    }
    for (auto& each : parts) each->wait();
    std::vector<ipc::detail::stored<R>> values;
    values.reserve(all.size());
    for (auto& part : parts)
      for (auto& each : part->get()) {
        if (each.error) std::rethrow_exception(each.error);
        values.push_back(std::move(*each.value));
      }
    if constexpr (!std::is_void_v<R>) return values;
  }

  template <class F, class Range>
  auto lazily(bool ordered, F f, Range&& items, std::size_t chunk) {
    using tuple = std::tuple<std::remove_cvref_t<item_of<Range>>>;
    using R = result_of<F, tuple>;
    static_assert(!std::is_void_v<R>, "ringlet::process_pool: imap gives f's results, but f returns void; use map");
    if (chunk == 0) throw std::invalid_argument("ringlet: imap in chunks of 0 items would never end; 1 is the least");
    struct source {
      Range items;
      decltype(std::begin(items)) at = std::begin(items);
      decltype(std::end(items)) end = std::end(items);
      explicit source(Range&& r) : items(std::forward<Range>(r)) {}
    };
    auto from = std::make_shared<source>(std::forward<Range>(items));
    pool_results<R> results;
    results.ordered_ = ordered;
    results.window_ = size() * 2;
    results.more_ = [this, f, from, chunk](pool_results<R>& to) {
      std::vector<tuple> some;
      for (; some.size() < chunk && from->at != from->end; ++from->at) some.emplace_back(*from->at);
      if (some.empty()) return false;
      submit<R>(f, some, [number = to.submitted_++, queue = to.ended_](typename pool_results<R>::ends got) { queue->put({number, std::move(got)}); });
      return true;
    };
    return results;
  }

  ipc::detail::pool_core core_;
};

}  // namespace ringlet

#pragma once
// group: fibers that are counted, joined and killed together. pool: a group of limited size, whose spawn waits for room.
//
//   ringlet::pool workers(10);
//   for (auto& url : urls) workers.spawn(fetch, url);        // never more than ten at once
//   workers.join();
//   auto pages = workers.map(fetch, urls);                   // the results in the order of the urls
//   for (auto& page : workers.imap_unordered(fetch, urls)) show(page);  // each as soon as it is there
//
// A member leaves when it is finished, whatever finished it, and its place goes to whoever waits longest for one. A group
// belongs to one thread, as its fibers do: the one that first gave it a fiber. What calls f (map, imap, apply) may be given
// references: it never ends before its fibers have. Destroying a group kills its members and waits for their end.
// Semantics: gevent.pool.

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <ringlet/deadline.hpp>
#include <ringlet/fiber.hpp>
#include <ringlet/mapping.hpp>
#include <ringlet/timeout.hpp>

namespace ringlet {

class RINGLET_EXPORT group {
 public:
  group();
  ~group();
  group(const group&) = delete;
  group& operator=(const group&) = delete;

  // --- members ------------------------------------------------------------------------------------------------------

  // As ringlet::spawn, into this group. A full pool is waited for; if that is interrupted, nothing has been spawned.
  template <detail::not_options F, class... Args>
  auto spawn(F&& f, Args&&... args) {
    return spawn(spawn_options{}, std::forward<F>(f), std::forward<Args>(args)...);
  }
  template <class F, class... Args>
  auto spawn(const spawn_options& how, F&& f, Args&&... args) {
    take_place(never);
    return spawn_in_place(how, std::forward<F>(f), std::forward<Args>(args)...);
  }
  // The same, but empty if there is no room by the deadline (or now).
  template <class F, class... Args>
  auto try_spawn_until(deadline until, F&& f, Args&&... args) {
    using made = decltype(ringlet::spawn(std::forward<F>(f), std::forward<Args>(args)...));
    if (!take_place(until)) return std::optional<made>();
    return std::optional<made>(spawn_in_place({}, std::forward<F>(f), std::forward<Args>(args)...));
  }
  template <class F, class... Args>
  auto try_spawn(F&& f, Args&&... args) {
    return try_spawn_until(deadline::passed(), std::forward<F>(f), std::forward<Args>(args)...);
  }
  // Makes a fiber of this thread a member until it is finished. False: no room by the deadline. A member or a finished one
  // is not added again: true.
  bool add(const any_fiber&, deadline until = never);
  // It is no member any longer, and runs on. False if it was none.
  bool discard(const any_fiber&);
  bool contains(const any_fiber&) const noexcept;
  std::size_t size() const noexcept;
  bool empty() const noexcept { return size() == 0; }
  std::vector<any_fiber> members() const;

  // Waits until it is empty once. False: the deadline passed first. raise_error: then throws the error of the first member
  // that failed meanwhile; those of the others stay unseen, and are reported.
  bool join(deadline until = never, bool raise_error = false);
  // Kills each member once, also those that come while it waits, and waits until none is left. False: the deadline
  // passed first. A member that calls it is killed last, here.
  bool kill(deadline until = never);
  bool kill(std::exception_ptr reason, deadline until = never);

  // --- room (a plain group is never full) ---------------------------------------------------------------------------

  bool full() const noexcept { return free_count() == 0; }
  std::size_t free_count() const noexcept;
  // Waits until there is room, without taking it: the free count, 0 when the deadline passed.
  std::size_t wait_available(deadline until = never);

  // --- calls --------------------------------------------------------------------------------------------------------

  // f(args...) in a member; its result or its error. Called by a member, it runs right there: so a task of a full pool may
  // call it. An interrupted caller kills the task and waits for its end.
  template <class F, class... Args>
  auto apply(F&& f, Args&&... args) -> std::invoke_result_t<F, Args...> {
    using R = std::invoke_result_t<F, Args...>;
    if (is_inside()) return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
    detail::map_run<R> run;
    auto& place = run.add();
    auto call = [&]() { place.run(std::forward<F>(f), std::forward<Args>(args)...); };
    run.watch(spawn(call), 0);
    run.wait_idle("apply");
    return run.take(0);
  }

  // Queues f() as a member and returns at once, even from a full pool: then the fiber waits for room before it calls f.
  // When it has ended, done(result) or failed(exception_ptr) runs in a fiber of its own; failed also for one that was killed.
  template <class F>
  auto apply_async(F&& f) {
    if (take_place(deadline::passed())) return spawn_in_place({}, std::forward<F>(f));
    auto waits = [this, g = std::decay_t<F>(std::forward<F>(f))]() mutable -> decltype(auto) {
      take_place_inside();
      return std::invoke(g);
    };
    auto made = ringlet::spawn(std::move(waits));
    adopt(made, standing::waiting);
    return made;
  }
  template <class F, class Done>
  auto apply_async(F&& f, Done done) {
    auto made = apply_async(std::forward<F>(f));
    link_done(made, std::move(done));
    return made;
  }
  template <class F, class Done, class Failed>
  auto apply_async(F&& f, Done done, Failed failed) {
    auto made = apply_async(std::forward<F>(f));
    link_done(made, std::move(done));
    made.link([failed = std::move(failed)](any_fiber ended) mutable {
      if (auto error = end_of(ended)) std::invoke(failed, std::move(error));
    });
    return made;
  }

  // f(item) for each item, in members. The results as a vector in the order of the items (nothing, if f returns void). All
  // are called; then the error of the first item that failed is thrown, if there is one. A member of a full pool
  // that calls it does the work itself.
  template <class F, class Range>
  auto map(F&& f, Range&& items) {
    using how = detail::mapped<std::remove_reference_t<F>, std::remove_reference_t<Range>>;
    using R = typename how::result;
    detail::map_run<R> run;
    const bool inside = is_inside();
    for (auto&& item : items) {
      auto& place = run.add();
      auto call = [&f, &place, held = detail::carried<typename how::item>{std::forward<decltype(item)>(item)}]() mutable {
        place.run(f, held.give());
      };
      if (take_place(inside ? deadline::passed() : never)) {
        run.watch(spawn_in_place({}, std::move(call)), run.count() - 1);
        continue;
      }
      try {
        call();
      } catch (const greenlet_exit&) {  // ours: this fiber is killed
        throw;
      } catch (const timeout_expired&) {  // ours, most likely
        throw;
      } catch (...) {
        place.finish(std::current_exception());
      }
    }
    run.wait_idle("map");
    if constexpr (std::is_void_v<R>) {
      for (std::size_t i = 0; i < run.count(); ++i) run.take(i);
    } else {
      std::vector<R> all;
      all.reserve(run.count());
      for (std::size_t i = 0; i < run.count(); ++i) all.push_back(run.take(i));
      return all;
    }
  }

  // The same, in a fiber that is returned at once: its result is map's, and done(result) runs afterwards in a fiber of its own.
  // Killed, also by the group's end, it ends what it has begun. A range given as an lvalue is not copied.
  template <class F, class Range>
  auto map_async(F f, Range&& items) {
    auto made = ringlet::spawn({.name = "map_async"}, [this, f = std::move(f), held = std::tuple<Range>(std::forward<Range>(items))]() mutable {
      return map(f, std::get<0>(held));
    });
    adopt(made, standing::guest);
    return made;
  }
  template <class F, class Range, class Done>
  auto map_async(F f, Range&& items, Done done) {
    auto made = map_async(std::move(f), std::forward<Range>(items));
    link_done(made, std::move(done));
    return made;
  }

  // f(item) for each item, in members, begun while the results are read: in the order of the items, or as they end. At most
  // `most_unread` are begun and not yet read. A range given as an lvalue is not copied and must live as long as
  // the results.
  template <class F, class Range>
  auto imap(F f, Range&& items, std::size_t most_unread = unbounded) {
    return lazily(true, std::move(f), std::forward<Range>(items), most_unread);
  }
  template <class F, class Range>
  auto imap_unordered(F f, Range&& items, std::size_t most_unread = unbounded) {
    return lazily(false, std::move(f), std::forward<Range>(items), most_unread);
  }

  static constexpr std::size_t unbounded = static_cast<std::size_t>(-1) / 2;

 protected:
  explicit group(std::size_t places);

 private:
  struct impl;
  enum class standing { placed, waiting, guest };  // has a place; will take one; works for the group outside of it
  struct taken_place {
    group* of;
    ~taken_place() { if (of) of->give_back_place(); }
  };

  bool take_place(deadline until);
  void give_back_place() noexcept;
  void adopt(const any_fiber&, standing);
  void take_place_inside();  // by the running member
  bool is_inside() const noexcept;
  static std::exception_ptr end_of(const any_fiber&);  // null if it has a result

  template <class F, class... Args>
  auto spawn_in_place(const spawn_options& how, F&& f, Args&&... args) {
    taken_place taken{this};
    auto made = ringlet::spawn(how, std::forward<F>(f), std::forward<Args>(args)...);
    adopt(made, standing::placed);
    taken.of = nullptr;
    return made;
  }

  template <class R, class Done>
  static void link_done(const fiber<R>& made, Done done) {
    made.link_value([made, done = std::move(done)](any_fiber ended) mutable {
      if (end_of(ended)) return;
      if constexpr (std::is_void_v<R>)
        std::invoke(done);
      else
        std::invoke(done, made.get());
    });
  }

  template <class F, class Range>
  auto lazily(bool ordered, F f, Range&& items, std::size_t most_unread) {
    using how = detail::mapped<F, std::remove_reference_t<Range>>;
    using R = typename how::result;
    static_assert(!std::is_void_v<R>, "ringlet: imap yields f's results, but f returns void; use map");
    if (most_unread == 0) throw std::invalid_argument("ringlet: imap with room for 0 unread results would never begin; 1 is the least");
    auto job = std::make_unique<detail::imap_job<R, F, Range>>(ordered, most_unread, std::move(f), std::forward<Range>(items));
    auto feeder = ringlet::spawn({.name = "imap's feeder"}, [this, j = job.get()] { feed<typename how::item>(*j); });
    job->watch(feeder, job->feeder);
    adopt(feeder, standing::guest);
    return results<R>(std::move(job));
  }
  // The feeder: an item is looked at only when there is room for it.
  template <class Item, class Job>
  void feed(Job& job) {
    auto at = std::begin(job.items);
    const auto end = std::end(job.items);
    for (;; ++at) {
      job.wait_for_window();
      if (!(at != end)) return;
      take_place(never);
      taken_place taken{this};
      detail::carried<Item> held{*at};
      auto& [index, place] = job.add();
      try {
        auto call = [f = &job.f, to = &place, held = std::move(held)]() mutable { to->run(*f, held.give()); };
        taken.of = nullptr;
        job.watch(spawn_in_place({}, std::move(call)), index);
      } catch (...) {
        job.fail(index);
      }
    }
  }

  std::unique_ptr<impl> impl_;
};

class RINGLET_EXPORT pool : public group {
 public:
  // Of at most so many members; without a number, as many as come. 0: spawn waits for ever. Negative: std::invalid_argument.
  pool() = default;
  template <std::integral N>
  explicit pool(N size) : group(checked(size)) {}

 private:
  template <std::integral N>
  static std::size_t checked(N size) {
    if (std::cmp_less(size, 0)) throw std::invalid_argument("ringlet: a pool's size must not be negative (0 lets nobody in)");
    return static_cast<std::size_t>(size);
  }
};

}  // namespace ringlet

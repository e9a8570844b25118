#pragma once
// A doubly linked list whose links are members of what it holds. Nothing is allocated; an element knows whether it is
// linked and unlinks itself without knowing the list.

#include <cstddef>

#include "base/assert.hpp"

namespace ringlet::base {

struct list_link {
  list_link* next = nullptr;
  list_link* previous = nullptr;
  bool linked() const noexcept { return next != nullptr; }
  void unlink() noexcept {
    if (!next) return;
    next->previous = previous;
    previous->next = next;
    next = previous = nullptr;
  }
};

// T has a base class (or is) Link, itself derived from list_link: one such base per list an element may be in.
template <class T, class Link = list_link>
class intrusive_list {
 public:
  intrusive_list() noexcept { head_.next = head_.previous = &head_; }
  intrusive_list(const intrusive_list&) = delete;

  bool empty() const noexcept { return head_.next == &head_; }
  void push_back(T& element) noexcept { insert_before(head_, element); }
  void push_front(T& element) noexcept { insert_before(*head_.next, element); }
  T& front() noexcept { return to_element(head_.next); }
  T* pop_front() noexcept {
    if (empty()) return nullptr;
    list_link& first = *head_.next;
    head_.next = first.next;
    first.next->previous = &head_;
    first.next = first.previous = nullptr;
    return &to_element(&first);
  }
  // Moves everything from another list to the end of this one.
  void take_all(intrusive_list& other) noexcept {
    while (T* e = other.pop_front()) push_back(*e);
  }
  // Forgets all elements without touching them (after fork: they live on stacks that no longer matter).
  void forget_all() noexcept { head_.next = head_.previous = &head_; }

  template <class F>
  void for_each(F f) {
    for (list_link* l = head_.next; l != &head_;) {
      list_link* following = l->next;
      f(to_element(l));
      l = following;
    }
  }

 private:
  static T& to_element(list_link* l) noexcept { return static_cast<T&>(static_cast<Link&>(*l)); }
  static void insert_before(list_link& place, T& element) noexcept {
    list_link& l = static_cast<Link&>(element);
    RINGLET_ASSERT(!l.linked(), "an element is put into a second list");
    l.next = &place;
    l.previous = place.previous;
    place.previous->next = &l;
    place.previous = &l;
  }
  Link head_;
};

}  // namespace ringlet::base

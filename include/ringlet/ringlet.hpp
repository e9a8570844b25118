#pragma once
// All of ringlet.
#include <ringlet/deadline.hpp>
#include <ringlet/fiber.hpp>
#include <ringlet/greenlet.hpp>
#include <ringlet/hooks.hpp>
#include <ringlet/hub.hpp>
#include <ringlet/io.hpp>
#include <ringlet/mapping.hpp>
#include <ringlet/pool.hpp>
#include <ringlet/local.hpp>
#include <ringlet/queue.hpp>
#include <ringlet/scope.hpp>
#include <ringlet/sync.hpp>
#include <ringlet/timeout.hpp>
#include <ringlet/wait.hpp>

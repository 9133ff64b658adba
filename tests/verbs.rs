// SPDX-License-Identifier: GPL-2.0-or-later
//! What goes beyond the original's commands, through the real program in a sandboxed system.

mod provenance;
mod refresh;
mod renamed;
mod several;
mod switch;

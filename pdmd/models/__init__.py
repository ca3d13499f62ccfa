"""Velocity models behind one interface: velocity(x_t, t, condition)."""

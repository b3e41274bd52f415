"""Drawn samples: pictures made by a program, with their truth, where there is no data at hand.

Nothing here was photographed, and every name says so: "cells (drawn)", "tubes (drawn)", "figures
(drawn)". A sample is a pure function of (seed, index): see `stream`.
"""

"""Cofferdam: an industrial DMZ between an office network (IT) and a plant network (OT).

Every exchange ends at a broker, is understood, judged by policy, recorded, and made anew on the other side.
"""

__version__ = "0.1.0"

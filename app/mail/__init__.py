"""What we write to customers, and how it leaves. Only worker jobs send (law 9)."""

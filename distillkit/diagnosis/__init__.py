"""What a teacher's scores say before anything is trained: figures, and sentences about them."""
